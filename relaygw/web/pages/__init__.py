"""The web pages of the sandbox: an inbox to look at captured mail in.

Templates are Jinja2 with escaping always on; pages work without JavaScript, which adds live
updates, keys and searches while typing. Content is read in threads, few at a time.
"""
