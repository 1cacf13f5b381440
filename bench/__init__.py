"""Benchmarks: each times the very functions that train.py runs."""

import shortline  # noqa: F401  (first of all: Ctrl-C is answered from here on)
