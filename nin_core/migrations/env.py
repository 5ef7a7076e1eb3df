"""What Alembic runs to reach the database: the connection, and the transaction, it was given."""

from alembic import context

from nin_core.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # SQLite too: the store begins its transactions itself
)
with context.begin_transaction():
    context.run_migrations()
