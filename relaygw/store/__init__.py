"""All SQL: the queue, its schema and its migrations.

`protocol.Store` is the seam; everyone but `roles` sees only that. The store is
synchronous and batch-shaped and is called from threads, never from an event loop.
May import `policy`, `observe`, `settings`, `mail` and `errors`.
"""
