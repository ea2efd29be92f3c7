"""tlcluster measured beside what people use: one file per part.

What is timed runs in a process of its own, ours and the peers' alike, and prints
what it found as one line of JSON.
"""
