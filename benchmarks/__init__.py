"""Speed of the decorated call and of the map against their peers, and the gates that keep it.

`python -m benchmarks` and `python -m benchmarks.maps` print the tables,
`python -m benchmarks.gates` judges the rows that must not get slower, and
`python -m benchmarks.hit_ratio` compares the memory store's eviction with LRU and FIFO.
README.md beside this file says how each figure is taken.
"""
