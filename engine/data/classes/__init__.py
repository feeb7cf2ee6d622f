"""Class names and labels: read, ordered and matched."""
