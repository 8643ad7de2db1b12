"""Captured mail: the inbox, one message, its release, live events, and an API for programs.

Pages work without JavaScript, which adds live updates, keys and searches while typing.
"""
