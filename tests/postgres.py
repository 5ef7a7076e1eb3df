"""A real PostgreSQL for the tests: found where it is installed, started once, gone afterwards.

Choices made here:

* A cluster of its own in a temporary directory, on a free port of this computer, without durability
  (`fsync`): what it holds is worth nothing after the tests.
* PostgreSQL refuses to run as root: then it runs as `postgres`, the user its package makes.
* Every test gets a schema of its own, named in its URL: a thousand times lighter than a database.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

_PLACES = (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt"))
_SETTINGS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200")


def find_postgresql() -> Path | None:
    """The folder with `initdb` and `pg_ctl` of the newest PostgreSQL here; None without one."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    for place in _PLACES:
        versions = sorted(place.glob("*/bin/initdb"), key=_version, reverse=True)
        found += [path.parent for path in versions]
    return next((folder for folder in found if _answers(folder)), None)


def _version(initdb: Path) -> int:
    digits = "".join(filter(str.isdecimal, initdb.parts[-3]))
    return int(digits or 0)


def _answers(folder: Path) -> bool:
    try:
        for name in ("initdb", "pg_ctl", "postgres"):
            subprocess.run(
                [folder / name, "--version"], capture_output=True, check=True, timeout=30
            )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


@contextmanager
def cluster() -> Iterator[Callable[..., str]]:
    """Start a PostgreSQL; yields a function that makes a new store's place and returns its URL."""
    folder = find_postgresql()
    assert folder is not None
    user = "postgres" if os.name == "posix" and os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="nin-pg-"))
    if user:
        shutil.chown(home, user)

    def run(*command: str | Path) -> None:
        subprocess.run(
            [*command], user=user, cwd=home, check=True, stdin=subprocess.DEVNULL, timeout=120,
            stdout=subprocess.DEVNULL, extra_groups=[] if user else None,
        )  # fmt: skip

    data, port = home / "data", _free_port()
    settings = " ".join(f"-c {setting}" for setting in _SETTINGS)
    listen = f"-h 127.0.0.1 -p {port} -k {home}"
    try:
        run(folder / "initdb", "-D", data, "-U", "nin", "-A", "trust", "-E", "UTF8", "--no-sync")
        log = ("-l", home / "log")
        run(folder / "pg_ctl", "-D", data, *log, "-w", "-o", f"{listen} {settings}", "start")
        try:
            yield _maker(f"postgresql+psycopg://nin@127.0.0.1:{port}")
        finally:
            run(folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _maker(server: str) -> Callable[..., str]:
    engine = sa.create_engine(f"{server}/postgres")
    numbers = itertools.count()

    def make(*, with_tables: bool = True) -> str:
        schema = f"store{next(numbers)}"
        with engine.begin() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
            if with_tables:
                connection.execute(sa.text(f"SET LOCAL search_path TO {schema}"))
                _make_tables(connection)
        return f"{server}/postgres?options=-csearch_path%3D{schema}"

    return make


def _make_tables(connection: sa.Connection) -> None:
    """What the store's own steps would make, in a tenth of the time (a test compares the two)."""
    from nin_core import tables
    from nin_core.migrations import VERSION_TABLE

    tables.METADATA.create_all(connection, checkfirst=False)
    connection.execute(sa.text("CREATE TABLE nin_schema (version integer PRIMARY KEY)"))
    connection.execute(sa.text("INSERT INTO nin_schema VALUES (3)"))
    revision = f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32) PRIMARY KEY)"
    connection.execute(sa.text(revision))
    connection.execute(sa.text(f"INSERT INTO {VERSION_TABLE} VALUES ('{tables.SCHEMA}')"))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
