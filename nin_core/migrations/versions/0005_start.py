"""What a run found before its first step."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a column; a run that has begun before has not looked."""
    op.add_column("runs", sa.Column("start", sa.Text))
    op.execute("UPDATE nin_schema SET version = 5")
