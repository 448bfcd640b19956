"""The database of a competition: SQLite in its folder, or another one by URL (PostgreSQL).

The log is the record of the competition; every other state follows from it, except what must not be in it:
token hashes and contacts, private scores, and sessions of the server. Databases refuse to change or delete
entries of the log. Transactions that write exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from avsbench_harness.errors import AvsbError, UsageError, one_line
from avsbench_harness.host.log import Entry

try:
    from sqlalchemy import (
        DDL,
        BigInteger,
        Column,
        Connection,
        Engine,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        create_engine,
        event,
        select,
    )  # fmt: skip
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
except ModuleNotFoundError as error:
    if error.name != "sqlalchemy":
        raise
    raise UsageError(
        'Competitions need the extra host: pip install "avsbench-harness[host]", then rerun the command.'
    ) from None

#: Seconds that a writer waits for another one.
TIMEOUT = 60

METADATA = MetaData()
LOG = Table(
    "log",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
    Column("digest", String(64), nullable=False),
)
TEAMS = Table(
    "teams",
    METADATA,
    Column("team", Integer, primary_key=True, autoincrement=False),
    Column("token", String(64), nullable=False, unique=True),
    Column("contact", Text, nullable=False),
)
PRIVATE_SCORES = Table(
    "private_scores",
    METADATA,
    Column("submission", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("nonce", String(32), nullable=False),
    Column("scores", Text, nullable=False),
)
SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("team", Integer, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

for _operation in ("UPDATE", "DELETE"):
    event.listen(
        LOG,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER log_no_{_operation.lower()} BEFORE {_operation} ON log "
            "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )
for _statement in (
    "CREATE OR REPLACE FUNCTION refuse_log_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the log is append-only'; END $$",
    "CREATE TRIGGER log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON log "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_log_change()",
):
    _ddl = DDL(_statement)  # type: ignore[no-untyped-call]
    event.listen(LOG, "after_create", _ddl.execute_if(dialect="postgresql"))


class Database:
    """Transactions on one database.

    Args:
        url: SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://...``. It may hold a password and is
            never printed.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine: Engine = create_engine(url, **_options(url))
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(
                f"The URL of the database cannot be used ({type(error).__name__}); pass sqlite:///FILE or "
                "postgresql+psycopg://USER:PASSWORD@HOST/NAME, with its driver installed."
            ) from None
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        with self.writing(lock=False) as connection:
            if self.engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(72623859790382856)")
            METADATA.create_all(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads."""
        with _sentences(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, lock: bool = True) -> Iterator[Connection]:
        """A transaction that excludes other writers; rolled back if the block raises."""
        with _sentences(), self.engine.connect() as connection:
            connection = connection.execution_options(write=True)
            with connection.begin():
                if lock and self.engine.dialect.name == "postgresql":
                    connection.exec_driver_sql("LOCK TABLE log IN EXCLUSIVE MODE")
                yield connection


def entries_after(connection: Connection, seq: int) -> list[Entry]:
    """The entries of the log after number ``seq``, in order."""
    rows = connection.execute(select(LOG).where(LOG.c.seq > seq).order_by(LOG.c.seq))
    return [Entry(row.seq, row.entry, row.digest) for row in rows]


def _options(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": TIMEOUT}} if url.startswith("sqlite") else {"pool_pre_ping": True}


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin in _begin_sqlite
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _sentences() -> Iterator[None]:
    """Report errors of the database as one sentence, without its URL and the values of statements."""
    try:
        yield
    except DBAPIError as error:
        reason = one_line(error.orig, 200)
        raise AvsbError(
            f"The database of the competition failed ({reason}); nothing of this step was stored. Rerun the "
            "command."
        ) from None
