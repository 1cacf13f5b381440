"""Benchmarks: each times the very functions that train.py runs."""
