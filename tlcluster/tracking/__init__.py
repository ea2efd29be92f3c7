"""A run's records → MLflow or Weights & Biases. Their libraries are imported only here."""
