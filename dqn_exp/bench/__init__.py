"""Benchmarks against other libraries and a lower bound, timed in the same run: `dqn-exp bench`."""
