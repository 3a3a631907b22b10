"""Dermatoscopic images to a small, calibrated, explained and deployable skin-lesion classifier."""

__version__ = "0.1.0"
