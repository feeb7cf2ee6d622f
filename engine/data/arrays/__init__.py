"""Arrays as people hand them over, and images in a file that are read on access."""
