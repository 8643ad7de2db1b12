"""Captured mail: pages that work without JavaScript, and an API for programs."""
