"""One worker's training. TensorFlow is imported only here."""
