"""The front: SMTP in, content read, policy applied, one commit for many messages.

May import `store`, `passwords`, `policy`, `observe`, `settings`, `mail` and `errors`.
"""
