"""The one training loop: seeded order, schedules, averaging, exact resume, every loss term on record."""
