"""Picture files become pixels."""
