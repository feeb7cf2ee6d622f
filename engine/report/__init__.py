"""What a run prints and writes: progress, history, curves, tables."""
