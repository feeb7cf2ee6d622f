"""A trained model is used: classified, evaluated, looked into."""
