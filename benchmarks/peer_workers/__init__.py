"""One script a library that :mod:`benchmarks.peers` compares, each run by the Python of an environment of its own."""
