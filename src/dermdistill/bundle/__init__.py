"""The deployable folder: written, verified, read and run without torch."""
