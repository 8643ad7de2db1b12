"""Benchmarks against Postfix and fault campaigns: programs, not tests. See docs/benchmarks.md."""
