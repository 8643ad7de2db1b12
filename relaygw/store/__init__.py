"""All SQL: repositories over one `database.Database`, and migrations.

Verbs are synchronous, shaped for batches, and called from threads, never from an event loop. May
import `policy`, `observe`, `settings`, `mail` and `errors`.
"""
