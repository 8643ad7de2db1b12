"""All SQL: the queue, its schema and its migrations.

`store.Store` are repositories over one `database.Database`. Everyone but `roles` sees only them
and the data that they speak of. They are synchronous, shaped for batches, and called from threads,
never from an event loop. May import `policy`, `observe`, `settings`, `mail` and `errors`.
"""
