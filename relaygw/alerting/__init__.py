"""Looks for trouble and tells people: rules over facts, incidents, channels.

Runs in a thread of the delivery role with an event loop of its own, so that neither a receiver
that hangs nor the making of a TLS context holds up mail. Knows no SQL and no role.
"""
