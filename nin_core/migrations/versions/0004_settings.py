"""The settings that a run is computed with."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a column; a run of before has its settings in its checkpoint, or gets new ones."""
    op.add_column("runs", sa.Column("settings", sa.Text))
    op.execute("UPDATE nin_schema SET version = 4")
