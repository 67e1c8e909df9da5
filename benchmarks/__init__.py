"""Speed of the decorated call, measured against its peers, and the gates that keep it.

`python -m benchmarks` prints the table, `python -m benchmarks.gates` judges the rows that must not
get slower, `python -m benchmarks.hit_ratio` compares the memory store's eviction with LRU and FIFO.
README.md beside this file says how each figure is taken.
"""
