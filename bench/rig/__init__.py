"""Servers, loads and meters that the programs in bench/ share. Standard library only.

The gateway under test runs in a process of its own; nothing here imports it, so that a meter
never shares an interpreter with what it measures.
"""
