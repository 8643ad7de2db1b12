"""alembic's entry: runs the migrations on the connection it is handed."""

from __future__ import annotations

from alembic import context

from relaygw.store.all_tables import whole_metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=whole_metadata(),
    render_as_batch=connection.dialect.name == "sqlite",
)
# the caller has begun the transaction and commits it: a failed step changes nothing
context.run_migrations()
