"""The delivery worker: claims due mail, sends it through pools, records what came of it.

May import `store`, `upstream`, `policy`, `observe`, `settings`, `mail`, `errors`.
"""
