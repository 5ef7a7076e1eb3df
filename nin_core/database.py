"""One database for several processes: how it is opened, and what its errors mean for the user.

Choices made here:

* SQLite runs in WAL mode: pages read while workers write. Every write transaction begins with
  BEGIN IMMEDIATE, so it waits for its turn at the start and cannot fail half way for another's
  sake. WAL works between the processes of one host only.
* A SQLite file that disappears or is replaced is noticed before every use; pooled connections
  would go on writing into the deleted file.
* PostgreSQL is the other database: for several hosts, and for a class. Its write transactions do
  not exclude each other; where one has to be alone, it says so (`alone`).
* The schema has a version (`migrations`). An older one is brought up when it is opened, by one
  process at a time and in one transaction; a newer one is refused in a sentence, never touched.
* Whatever SQLAlchemy or a driver raises leaves here as a `StoreError`.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from . import migrations
from .checks import ConfigError

BUSY_SECONDS = 5.0  # how long a write waits for other writers before the store is "locked"
WRITE_PAUSES = 0.002, 0.02  # seconds from one look whether it may begin to the next
POOL_SIZE, POOL_OVERFLOW = 8, 32  # more than a class's worth of page threads
CONNECT_SECONDS = 5  # how long a database server may take to answer at all
LOST_SECONDS = 10  # after which a connection to one that has vanished without a word is given up
# Whoever must be alone on a PostgreSQL database holds this lock: "nin" and "ex" as one number.
_ALONE = 0x6E696E_6578

_revisions = sa.table(migrations.VERSION_TABLE, sa.column("version_num"))
_numbers = sa.table(migrations.NUMBERED_TABLE, sa.column("version"))


class StoreError(Exception):
    """The store cannot do what was asked; the text is one sentence for the user.

    Attributes:
        reason: "locked", "full", "readonly", "damaged", "missing", "unreachable", "schema",
            "refused" (the request itself cannot be granted) or "error".
    """

    def __init__(self, message: str, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason


class Database:
    """Transactions on one database, from any thread.

    Args:
        url: an SQLAlchemy database URL.
        tables: the names of the store's tables: a database that has one of them without a
            version is another program's.
        schema: the version to bring the database up to.
        create: whether to make a SQLite file (and its folder) that is missing.

    Raises:
        StoreError: from the constructor and from inside `read` and `write`.
    """

    def __init__(self, url: str, tables: Set[str], schema: str, *, create: bool = True) -> None:
        self._tables, self._schema, self._create = tables, schema, create
        self._lock = threading.RLock()
        self._file_id: tuple[int, int] | None = None
        self._engine, self.path = _engine(url)
        self._writer = self._engine.execution_options(begin_write=True)
        self._reader = self._engine
        if self.path is None:  # in SQLite every transaction sees one state of the database
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self.url = self._engine.url.render_as_string(hide_password=False)
        self.title = str(self.path) if self.path else self._engine.url.render_as_string()
        if self.path is None:
            self._prepare()
        else:
            self._check_file()

    def close(self) -> None:
        """Close all connections; the next transaction opens new ones."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout."""
        with self._explained(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; committed at the end of the block, or not at all."""
        with self._explained(), self._writer.begin() as connection:
            yield connection

    @staticmethod
    def alone(connection: Connection) -> None:
        """Let no other transaction that asks for this go on until the present one has ended.

        SQLite's write transactions exclude each other anyway.
        """
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ALONE)))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the database says into a StoreError."""
        try:
            self._check_file()
            yield
        except SQLAlchemyError as error:
            raise _explain(error, self.title) from error
        except ConfigError:
            raise
        except OverflowError as error:
            raise StoreError("No run has a number as large as that.", "refused") from error
        except ValueError as error:  # a date, a text or a JSON that is none
            raise StoreError(
                f"The run store {self.title} holds a value that cannot be read ({error}); restore "
                "it from a backup.",
                "damaged",
            ) from error

    def _check_file(self) -> None:
        """Open or reopen the SQLite file if it is new here or was replaced meanwhile.

        Without this, pooled connections would go on writing into a deleted file.
        """
        if self.path is None:
            return
        found = _file_id(self.path)
        if found is not None and found == self._file_id:
            return
        with self._lock:
            found = _file_id(self.path)
            if found is not None and found == self._file_id:
                return
            self._engine.dispose()
            if found is None:
                if not self._create:
                    raise StoreError(f"The run store {self.title} does not exist.", "missing")
                _make_file(self.path)
            self._prepare()
            self._file_id = _file_id(self.path)

    def _prepare(self) -> None:
        """Make the tables if there are none, and bring older ones up to the present version."""
        if self.path is not None:
            self._use_wal()
        try:
            with self._reader.begin() as connection:
                version = self._version(connection)
            if version == self._schema:
                return
            with self._writer.begin() as connection:
                self.alone(connection)
                version = self._version(connection)  # another process may have been first
                if version != self._schema:
                    stated = connection.dialect.has_table(connection, migrations.VERSION_TABLE)
                    try:
                        migrations.upgrade(connection, stamp=None if stated else version)
                    except migrations.UnknownVersion as error:
                        raise self._refused("an older", version) from error
        except SQLAlchemyError as error:
            raise _explain(error, self.title) from error

    def _version(self, connection: Connection) -> str | None:
        """The schema version in the database; None if it has no tables yet.

        Raises:
            StoreError: for a version that cannot be brought up, or another program's tables.
        """
        present = set(sa.inspect(connection).get_table_names())
        if migrations.VERSION_TABLE in present:
            version = connection.scalar(sa.select(_revisions.c.version_num))
            if version is not None and version > self._schema:
                raise self._refused("a newer", version)
            return version
        if migrations.NUMBERED_TABLE in present:
            number = connection.scalar(sa.select(sa.func.max(_numbers.c.version))) or 0
            if number not in migrations.NUMBERED:
                raise self._refused("a newer" if number else "an older", number)
            return migrations.NUMBERED[number]
        if present & self._tables:
            raise StoreError(
                f"The database {self.title} holds tables of another program; set NIN_DATABASE_URL "
                "to a database of its own.",
                "schema",
            )
        return None

    def _refused(self, age: str, version: object) -> StoreError:
        return StoreError(
            f"The run store {self.title} was written by {age} NiN Explorer (schema {version}, "
            f"this one reads {self._schema}); use that version, or set NIN_DATABASE_URL to "
            "another database.",
            "schema",
        )

    def _use_wal(self) -> None:
        """Switch a new SQLite file to WAL. It stays so; where it cannot be, all works slower.

        The switch needs the file for itself and does not wait, so it is tried until the time of
        a locked database is up.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with self._engine.connect() as connection:
                    raw = connection.connection.driver_connection
                    assert raw is not None
                    if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                        raw.execute("PRAGMA journal_mode=WAL").fetchone()
                return
            except (sqlite3.Error, SQLAlchemyError) as error:
                if _is(error, "SQLITE_READONLY", "SQLITE_CANTOPEN"):
                    return  # the first transaction will say so
                waits = _is(error, "SQLITE_BUSY", "SQLITE_LOCKED")
                if not waits or time.monotonic() > deadline:
                    raise _explain(error, self.title) from error
                time.sleep(0.02)


# --- engines and their errors -----------------------------------------------------------------


def _engine(url: str) -> tuple[sa.Engine, Path | None]:
    """An engine for this URL, and the file behind it if it is SQLite."""
    example = "sqlite:////home/me/runs.db"
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return _server_engine(parsed), None
        name = parsed.database
        if not name or name == ":memory:" or name.startswith("file:"):
            raise StoreError(
                "Runs need a database file that other processes can open, so "
                f"NIN_DATABASE_URL={example} would work, a database in memory does not.",
                "refused",
            )
        path = Path(name).expanduser().absolute()
        engine = sa.create_engine(
            parsed.set(database=path.as_posix()),
            creator=lambda: _connect(path),
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=BUSY_SECONDS,
        )
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            f"NIN_DATABASE_URL is not a database address; {example} would work.", "refused"
        ) from error
    except (NoSuchModuleError, ImportError) as error:
        raise StoreError(
            f"The database's driver is not installed ({error}); for postgresql+psycopg:// "
            "`pip install -r requirements-postgresql.txt` would work.",
            "refused",
        ) from error

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("begin_write"):
            _begin_to_write(connection)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine, path


def _begin_to_write(connection: Connection) -> None:
    """Begin a transaction that writes as soon as nobody else's does.

    Waits in short pauses of chance lengths. SQLite's own grow to a tenth of a second, so that of
    many writers one may find the file taken each time it looks, until its time is up.
    """
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    deadline = time.monotonic() + BUSY_SECONDS
    try:
        raw.execute("PRAGMA busy_timeout=0")
        while time.monotonic() < deadline:
            try:
                raw.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:  # of a damaged file no OperationalError
                if not _is(error, "SQLITE_BUSY"):
                    break
                time.sleep(random.uniform(*WRITE_PAUSES))
            else:
                return
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # for SQLAlchemy's own error
    finally:
        raw.execute(f"PRAGMA busy_timeout={1000 * BUSY_SECONDS:.0f}")


def _server_engine(url: sa.URL) -> sa.Engine:
    """An engine for PostgreSQL, which waits no longer for others than SQLite does here."""
    if url.drivername != "postgresql+psycopg":
        raise StoreError(
            f"Runs are kept in SQLite or PostgreSQL, not in {url.drivername}; "
            "postgresql+psycopg://me@server/nin would work.",
            "refused",
        )
    own = url.query.get("options", "")
    waits = f"{own if isinstance(own, str) else ' '.join(own)} -c lock_timeout={BUSY_SECONDS:.0f}s"
    return sa.create_engine(
        url,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": waits.strip(),
            "tcp_user_timeout": 1000 * LOST_SECONDS,
            "keepalives_idle": LOST_SECONDS // 2,
            "keepalives_interval": LOST_SECONDS // 4,
            "keepalives_count": 2,
        },
        pool_pre_ping=True,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=BUSY_SECONDS,
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open an existing SQLite file; transactions begin only where the engine says so."""
    connection = sqlite3.connect(
        f"file:{quote(path.as_posix())}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA foreign_keys=ON")
    # In WAL mode a crash of the machine may cost the last commits, never the database.
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # an empty file is an empty SQLite database
    except OSError as error:
        raise StoreError(
            f"The run store {path} cannot be made ({error.strerror or error}); set "
            "NIN_DATABASE_URL to a place that can be written, e.g. sqlite:////home/me/runs.db.",
            "unreachable",
        ) from error


def _cause(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _is(error: BaseException, *names: str) -> bool:
    """Whether it is SQLite's error of one of these names, or a more special kind of it.

    PostgreSQL's errors go by five characters, of which the first two are a class.
    """
    cause = _cause(error)
    found = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
    return found.startswith(names)


def _explain(error: BaseException, title: str) -> StoreError:
    """The sentence for a database error: what is wrong and what to do."""
    cause = _cause(error)
    said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    store = f"The run store {title}"
    # 55P03: no lock within the time. 40: lost against another transaction. 53300: no connection.
    locked = "SQLITE_BUSY", "SQLITE_LOCKED", "55P03", "40", "53300"
    if isinstance(error, sa.exc.TimeoutError) or _is(error, *locked):
        return StoreError(f"{store} is locked by another process; try again in a moment.", "locked")
    # A file-size limit and a full quota come as I/O errors of a write.
    if _is(error, "SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "53100"):
        return StoreError(
            f"{store} cannot grow because its disk is full; free some space or delete runs.", "full"
        )
    if _is(error, "42501", "25006"):
        return StoreError(
            f"{store} cannot be written ({said}); let its user write, or set NIN_DATABASE_URL to "
            "another database.",
            "readonly",
        )
    if _is(error, "SQLITE_READONLY"):
        return StoreError(
            f"{store} cannot be written; allow writing to the file and its folder, or set "
            "NIN_DATABASE_URL to another place.",
            "readonly",
        )
    # No such table (any more), or no such database: that has no code, nor have other refusals.
    if _is(error, "42P01") or ("FATAL:  database" in said and "does not exist" in said):
        return StoreError(f"{store} does not exist ({said}); `createdb` makes one.", "missing")
    if _is(error, "XX001", "XX002"):
        return StoreError(f"{store} is damaged ({said}); restore it from a backup.", "damaged")
    if _is(error, "SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return StoreError(
            f"{store} is damaged or not a run store; move the file away, or set NIN_DATABASE_URL "
            "to another one.",
            "damaged",
        )
    if _is(error, "SQLITE_TOOBIG"):
        return StoreError(f"{store} cannot take an entry that large.", "refused")
    if _is(error, "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_AUTH"):
        return StoreError(
            f"{store} cannot be opened ({said}); check that its folder exists and can be written.",
            "unreachable",
        )
    if isinstance(error, DBAPIError) and (
        error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
    ):
        return StoreError(f"{store} cannot be reached ({said}).", "unreachable")
    return StoreError(f"{store} does not work as expected ({said}).")
