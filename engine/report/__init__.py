"""What a run shows and leaves: progress, history, curves, tables."""
