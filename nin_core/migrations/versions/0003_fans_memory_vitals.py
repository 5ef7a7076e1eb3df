"""Seed fans, a run's memory, norms and dead channels; pins and snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns, and the two tables that a store has had from their first use only."""
    op.add_column("runs", sa.Column("fan", sa.String(40)))
    op.create_index("ix_runs_fan", "runs", ["fan"])
    for name in ("predicted_bytes", "base_bytes", "peak_bytes"):
        op.add_column("runs", sa.Column(name, sa.BigInteger))
    op.add_column("metrics", sa.Column("gradient_norm", sa.Float))
    op.add_column("metrics", sa.Column("update_norm", sa.Float))
    op.add_column("metrics", sa.Column("dead_channels", sa.Text))
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "pins" not in there:
        op.create_table(
            "pins",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(60), nullable=False),
            sa.Column("folded", sa.String(180), nullable=False, unique=True),
            sa.Column("network", sa.Text, nullable=False),
            sqlite_autoincrement=True,
        )
    if "snapshots" not in there:
        run = sa.ForeignKey("runs.id", ondelete="CASCADE")
        op.create_table(
            "snapshots",
            sa.Column("run_id", sa.Integer, run, primary_key=True),
            sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("epoch", sa.Integer, nullable=False),
            sa.Column("made_at", sa.Float, nullable=False),
            sa.Column("size", sa.Integer, nullable=False),
            sa.Column("blob", sa.LargeBinary, nullable=False),
        )
    op.execute("UPDATE nin_schema SET version = 3")
