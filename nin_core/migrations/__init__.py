"""The run store's tables, version by version, for Alembic; `nin_core.database` brings stores up.

Choices made here:

* A new store is made by the same steps as an old one is brought up, so there is one history. A
  test compares what the steps make with the declarations in `tables.py`.
* A step only adds. It runs in one transaction with the note of its number, so a store is either
  as it was or as it should be.
* The steps name their columns themselves: they must still be right when `tables.py` has moved on.

To add one: the next number's file in `versions/`, with `down_revision` the last one's number, and
that number as `SCHEMA` in `tables.py`.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import Connection

VERSION_TABLE = "nin_schema_revision"
#: Where stores were written before Alembic: a table with one number, and the revision it equals.
NUMBERED_TABLE, NUMBERED = "nin_schema", {1: "0001"}


class UnknownVersion(LookupError):
    """A database's version is not one of the steps here."""


def upgrade(connection: Connection, *, stamp: str | None = None) -> None:
    """Bring a database up to the newest version, within the transaction of `connection`.

    Args:
        stamp: the version that its tables have, for one that does not say so itself.

    Raises:
        UnknownVersion: for a version that is not one of these.
    """
    # Only here: a store that is up to date, as nearly every one that is opened, needs no Alembic.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        if stamp is not None:
            command.stamp(config, stamp)
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnknownVersion(str(error)) from error
