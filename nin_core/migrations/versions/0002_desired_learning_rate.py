"""The learning rate that a run is wanted to go on with."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; programs from before Alembic must not touch the store any more."""
    op.add_column("runs", sa.Column("desired_rate", sa.Float))
    op.execute("UPDATE nin_schema SET version = 2")
