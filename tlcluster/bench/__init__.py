"""Measures tlcluster beside other libraries, one file per part.

Every timed program, ours or a peer's, runs in its own process and prints its
result as one line of JSON.
"""
