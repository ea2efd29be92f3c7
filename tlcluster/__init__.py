"""tlcluster: four VGG16 transfer-learning experiments on CINIC-10, trained at once, one report."""

__version__ = "0.1.0"
