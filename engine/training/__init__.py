"""The compiled step and all that it is made of."""
