"""Leakage: images that two splits of a data set share, exactly or nearly."""
