"""Specs become pure functions of Flax NNX modules."""
