"""Sources → Dataset: uint8 images, labels, class names and a fingerprint of the content. Nothing here is random."""
