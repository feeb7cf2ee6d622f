"""Several processes, on one host or many, that train one run: how they start, agree, and end."""
