"""What a run is logged to beside its own directory, while it trains: TensorBoard, Weights & Biases, MLflow."""
