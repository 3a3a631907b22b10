"""What a student learns from: losses (pure) and the objective that weighs and records them."""
