"""Runs, metrics, checkpoints and evaluations, as they were before versions were Alembic's."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_FIGURES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def _run_id(**settings: bool) -> sa.Column[int]:
    return sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id", ondelete="CASCADE"), **settings)


def upgrade() -> None:
    """Make the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("desired_state", sa.String(20), nullable=False),
        sa.Column("desired_at", moment),
        sa.Column("phase", sa.String(200)),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment),
        sa.Column("heartbeat_at", moment),
        sa.Column("dataset", sa.String(50), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker_host", sa.String(200)),
        sa.Column("worker_pid", sa.Integer),
        sa.Column("worker_mark", sa.String(50), nullable=False),
        sa.Column("spawns", sa.Integer, nullable=False),
        sa.Column("threads", sa.Integer),
        sa.Column("device", sa.String(50)),
        sa.Column("error", sa.Text),
        sa.Column("diagnosis", sa.Text),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("total_steps", sa.Integer),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("learning_rate", sa.Float),
        sa.Column("examples_per_second", sa.Float),
        *(sa.Column(name, sa.Float) for name in _FIGURES),
        sa.Column("test_examples", sa.Integer),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("train", sa.Text, nullable=False),
        sa.Column("log", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_state", "runs", ["state"])
    op.create_index("ix_runs_worker_host", "runs", ["worker_host"])
    op.create_table(
        "metrics",
        sa.Column("id", sa.Integer, primary_key=True),
        _run_id(nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        *(sa.Column(name, sa.Float) for name in _FIGURES),
        sa.Column("test_examples", sa.Integer),
        sa.Column("learning_rate", sa.Float),
        sa.Column("examples_per_second", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("metrics_of_run", "metrics", ["run_id", "id"])
    op.create_table(
        "checkpoints",
        _run_id(primary_key=True),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("info", sa.Text, nullable=False),
        sa.Column("blob", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "evaluations",
        _run_id(primary_key=True),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("classes", sa.Integer, nullable=False),
        sa.Column("loss", sa.Float),
        sa.Column("accuracy", sa.Float),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("logits", sa.LargeBinary, nullable=False),
    )
    # Programs from before Alembic read this number, and leave a store alone whose is higher.
    numbered = op.create_table(
        "nin_schema", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False)
    )
    op.bulk_insert(numbered, [{"version": 1}])
