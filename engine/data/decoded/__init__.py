"""Datasets: what every source is decoded into, and the cache of it."""
