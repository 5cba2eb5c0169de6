"""Benchmarks: `python -m bench.NAME`, from the project's root."""
