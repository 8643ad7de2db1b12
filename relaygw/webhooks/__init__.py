"""Tells programs of shops what becomes of mail: signed posts, from the outbox of the store.

Runs in a thread of the web role with an event loop of its own, so that no receiver can hold up
mail. Knows no SQL, no role and no page.
"""
