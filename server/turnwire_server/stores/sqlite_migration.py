"""Bringing the file of a SqliteSessionStore to the newest schema: all that is missing in one transaction.

A file that has content is copied first, so that whoever does not like the newer turnwire can go back to the older one.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from turnwire_server.stores.sqlite_fault import explain
from turnwire_server.stores.sqlite_file import StoreOpenError
from turnwire_server.telemetry.logs import logger

# Marks a file as ours in its header (PRAGMA application_id): "twir".
_APPLICATION_ID = 0x74776972

log = logger()


def read_scripts() -> list[str]:
    """Return the scripts of the schema; the n-th one leads from version n - 1 to version n."""
    folder = files("turnwire_server.stores") / "sqlite_schema"
    scripts = sorted((script for script in folder.iterdir() if script.name.endswith(".sql")), key=lambda s: s.name)
    return [script.read_text() for script in scripts]


def check_file(path: Path, scripts: Sequence[str]) -> None:
    """Refuse a file that is not ours, or that a newer turnwire wrote, before anything is changed in it.

    Errors: StoreOpenError; sqlite3.Error.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        _read_version(connection, newest=len(scripts))


def migrate(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Bring the file to the newest version of the schema; it is backed up before, if it has an older one.

    Errors: StoreOpenError, for a file that is not ours or that a newer turnwire wrote, when the backup cannot be made,
    or when a script fails: the file is as it was then; sqlite3.Error.
    """
    version, newest = _read_version(connection, newest=len(scripts)), len(scripts)
    _check_scripts(connection, scripts[:version])
    if version == newest:
        return
    path = Path(connection.execute("PRAGMA database_list").fetchone()["file"])
    if version:
        _back_up(connection, path, version)
    steps = (_step(number, script) for number, script in enumerate(scripts[version:], version + 1))
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} COMMIT;")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        msg = f"the file cannot be brought from schema {version} to {newest}, and is as it was: {explain(error)}"
        raise StoreOpenError(msg) from error
    if version:
        log.info("migrated the store", store=str(path), schema_before=version, schema=newest)


def _step(number: int, script: str) -> str:
    return (
        f"{script}\n; PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {number};"
        " CREATE TABLE IF NOT EXISTS schema_script (version INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL) STRICT;"
        f" INSERT INTO schema_script (version, fingerprint) VALUES ({number}, '{_fingerprint(script)}');"
    )


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the file to one beside it, in place of a copy that was made of this version before."""
    backup = path.with_name(f"{path.name}.schema{version}.backup")
    part = backup.with_name(backup.name + ".part")
    try:
        _copy(connection, part)
        os.replace(part, backup)
        _synchronize(backup.parent)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        cause = error.strerror if isinstance(error, OSError) else explain(error)
        msg = f"the backup {backup} cannot be made, without which schema {version} is not migrated: {cause}"
        raise StoreOpenError(msg) from error
    log.info("backed up the store before its migration", store=str(path), schema=version, backup=str(backup))


def _copy(connection: sqlite3.Connection, part: Path) -> None:
    """Make a durable copy, for the eyes of the owner only."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = OFF")  # what is not whole is thrown away
        connection.backup(copy)
    _synchronize(part)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_scripts(connection: sqlite3.Connection, applied: Sequence[str]) -> None:
    """Refuse a file that was made by other scripts than ours of the same version: a development version wrote it."""
    if not applied:
        return
    try:
        rows = connection.execute("SELECT fingerprint FROM schema_script ORDER BY version").fetchall()
    except sqlite3.OperationalError:  # older than this check
        rows = []
    if [row[0] for row in rows] != [_fingerprint(script) for script in applied]:
        msg = "a development version of turnwire with another schema wrote the file; use that version, or another file"
        raise StoreOpenError(msg)


def _fingerprint(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def _read_version(connection: sqlite3.Connection, newest: int) -> int:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != _APPLICATION_ID and not is_empty:
        msg = "the file is not a turnwire store; name another file"
        raise StoreOpenError(msg)
    if version > newest:
        msg = f"a newer turnwire wrote the file (schema {version}, this one knows {newest}); upgrade turnwire"
        raise StoreOpenError(msg)
    return int(version)
