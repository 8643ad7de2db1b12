"""Builds and runs docker/Dockerfile without an engine, step by step, in directories."""
