"""A run's records → numbers, figures and a page; neither Ray nor TensorFlow."""
