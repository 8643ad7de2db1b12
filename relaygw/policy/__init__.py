"""Decisions: who may submit, where mail goes, who receives, when to try again.

No I/O, clock or chance of their own. May import `settings`, `mail` and `errors`.
"""
