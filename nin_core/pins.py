"""Networks kept by name, to compare others with: the table `pins` in the run store's database.

Choices made here:

* A pin is a configuration and its name, nothing computed: whatever shows it summarizes it anew.
* Two pins cannot share a name, however it is capitalized, nor take a preset's: names are what
  a person chooses from.
* A pin that this program cannot read (of another version, damaged) is listed with the reason
  instead of a network, so that it can be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from .checks import ConfigError
from .config import PRESETS, NiNConfig
from .database import Database, StoreError
from .tables import MAX_PIN_NAME, pins


@dataclass(frozen=True, slots=True)
class Pin:
    """A network kept by name.

    Attributes:
        id: its number, the same for good; a pin that is renamed keeps it.
        name: 1 to 60 characters.
        network: the configuration; None if it cannot be read any more.
        problem: why it cannot be read, in one sentence; None if it can.
    """

    id: int
    name: str
    network: NiNConfig | None
    problem: str | None = None


class Pins:
    """The pinned networks of one database.

    Every method raises `StoreError`, in one sentence: "refused" for a name that cannot be, the
    database's own reasons when it cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Pin]:
        """All pins, the oldest first."""
        with self._database.read() as connection:
            query = sa.select(pins.c.id, pins.c.name, pins.c.network).order_by(pins.c.id)
            return [_pin(*row) for row in connection.execute(query)]

    def add(self, name: str, network: NiNConfig) -> Pin:
        """Keep `network` under `name`."""
        cleaned = clean_name(name)
        values = _named(cleaned) | {"network": json.dumps(network.to_dict())}
        with self._database.write() as connection:
            _refuse_taken(connection, cleaned)
            with _taken_meanwhile(cleaned):
                key = connection.execute(pins.insert().values(values)).inserted_primary_key
        assert key is not None
        return Pin(int(key[0]), cleaned, network)

    def rename(self, pin_id: int, name: str) -> None:
        """Give a pin another name."""
        cleaned = clean_name(name)
        with self._database.write() as connection:
            _refuse_taken(connection, cleaned, but=pin_id)
            change = pins.update().where(pins.c.id == pin_id).values(_named(cleaned))
            with _taken_meanwhile(cleaned):
                found = connection.execute(change).rowcount
        if not found:
            raise StoreError("This pinned network is gone; somebody deleted it.", "refused")

    def delete(self, pin_id: int) -> None:
        """Forget a pin; one that is gone already is no error."""
        with self._database.write() as connection:
            connection.execute(pins.delete().where(pins.c.id == pin_id))


def clean_name(name: str) -> str:
    """`name` on one line without surplus blanks.

    Raises:
        StoreError: if nothing is left, more than 60 characters are, or it is a preset's name.
    """
    cleaned = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if not cleaned:
        raise StoreError("A pinned network needs a name, for example “wider block 3”.", "refused")
    if len(cleaned) > MAX_PIN_NAME:
        raise StoreError(
            f"This name has {len(cleaned)} characters; at most {MAX_PIN_NAME} would work.",
            "refused",
        )
    if cleaned.casefold() in PRESETS:
        raise StoreError(f"“{cleaned}” is a preset's name; “my {cleaned}” would work.", "refused")
    return cleaned


def _named(name: str) -> dict[str, str]:
    return {"name": name, "folded": name.casefold()}


def _refuse_taken(connection: Connection, name: str, but: int | None = None) -> None:
    query = sa.select(pins.c.id, pins.c.name).where(pins.c.folded == name.casefold())
    found = connection.execute(query).one_or_none()
    if found is not None and found.id != but:
        raise _taken(found.name)


@contextmanager
def _taken_meanwhile(name: str) -> Iterator[None]:
    """Turn the database's own refusal of a second equal name into the sentence for it.

    SQLite lets one writer in at a time; other databases may have let two look first.
    """
    try:
        yield
    except IntegrityError as error:
        raise _taken(name) from error


def _taken(name: str) -> StoreError:
    return StoreError(
        f"There is a pinned network “{name}” already; choose another name, or delete that one.",
        "refused",
    )


def _pin(pin_id: int, name: str, network: str) -> Pin:
    try:
        return Pin(pin_id, name, _parsed(network))
    except (ConfigError, ValueError, TypeError) as error:
        return Pin(pin_id, name, None, f"The pinned network “{name}” cannot be read: {error}")


@lru_cache(maxsize=256)
def _parsed(network: str) -> NiNConfig:
    """The same text is always the same network, and pages list the pins at each step of a slider.

    Raises:
        ConfigError, ValueError, TypeError: if it is none.
    """
    return NiNConfig.from_dict(json.loads(network))
