"""What `engine …` can do, one module a command."""
