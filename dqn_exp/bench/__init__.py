"""Benchmarks against baselines and floors timed in the same run: `python -m dqn_exp.bench`."""
