"""Augmentation: random changes of training images, drawn and computed inside the compiled step."""
