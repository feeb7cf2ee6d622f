"""Arrays as people hand them over, and images in a file read when they are asked for."""
