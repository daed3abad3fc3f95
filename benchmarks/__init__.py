"""Microbenchmarks that check the answers before they time anything; ``python -m benchmarks`` lists them."""
