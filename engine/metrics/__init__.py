"""Losses, sums of metrics, calibration, combination of members, early stopping."""
