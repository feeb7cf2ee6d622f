"""A classifier as files that other programs run: StableHLO, ONNX, TensorFlow SavedModel."""
