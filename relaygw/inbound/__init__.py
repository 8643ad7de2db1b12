"""The front: SMTP in, content read, policy applied, one commit for many messages.

May import `store`, `access`, `policy`, `observe`, `settings`, `mail` and `errors`.
"""
