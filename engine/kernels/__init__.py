"""Convolutions and pools as each device runs them fastest, one file a lowering."""
