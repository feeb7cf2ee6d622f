"""Saved runs: steps, their record, packed runs."""
