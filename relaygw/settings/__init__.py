"""The configuration: its model, where values come from, and secrets by reference.

Settings are read once per process and frozen; a reload starts new processes with new
settings. May import `mail` and `errors`.
"""
