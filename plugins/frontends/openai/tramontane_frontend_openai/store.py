# SPDX-License-Identifier: Apache-2.0
"""What outlives a request: responses and files, in one SQLite file.

A row that was written is on the disk before its writer goes on, so what a client was told to be stored survives a
crash. Rows end with their time; who asks for one must name the tenant it belongs to. Every method blocks; callers in an
event loop use :func:`asyncio.to_thread`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tramontane.errors import ConfigError

SCHEMA = 1
"""``user_version`` of the file."""
PURGE_EVERY_S = 600.0
MAX_FILES = 4096
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, tenant BLOB NOT NULL, expires REAL NOT NULL, owner INTEGER NOT NULL,
    body TEXT NOT NULL, input TEXT NOT NULL, events TEXT
);
CREATE TABLE IF NOT EXISTS items (
    id TEXT NOT NULL, response TEXT NOT NULL REFERENCES responses(id) ON DELETE CASCADE, PRIMARY KEY (id, response)
);
CREATE INDEX IF NOT EXISTS items_by_response ON items(response);
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, tenant BLOB NOT NULL, created REAL NOT NULL, expires REAL, name TEXT NOT NULL,
    purpose TEXT NOT NULL, content BLOB NOT NULL
);
"""
_CARDS = (
    "SELECT id, created, expires, name, purpose, length(content) FROM files "
    "WHERE tenant = ? AND (expires IS NULL OR expires > ?)"
)


@frozen(kw_only=True)
class StoredResponse:
    """A response as it lies in the store."""

    body: dict[str, Any]
    """The response as clients get it."""
    input: list[dict[str, Any]]
    """The items it answers, without those of the responses before it."""
    events: list[dict[str, Any]] | None = None
    """What was streamed, if it can be streamed again."""

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.body["id"])


@frozen(kw_only=True)
class StoredFile:
    """A file as it lies in the store; ``content`` is loaded only when it is asked for."""

    id: str
    created: float
    expires: float | None
    name: str
    purpose: str
    size: int


@define(eq=False)
class Store:
    """One SQLite file, or memory."""

    path: Path | None = None
    """``None`` keeps everything in memory."""
    ttl_s: float = 30 * 24 * 3600.0
    """For how long responses are kept."""
    _connection: sqlite3.Connection = field(init=False)
    _lock: threading.RLock = field(factory=threading.RLock, init=False)
    _purged: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot keep responses and files in {self.path}: {error}",
                hint="choose another folder with --state-dir, or --state-dir none to keep them in memory",
            ) from None

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        made = sqlite3.connect(self.path or ":memory:", check_same_thread=False, isolation_level=None, timeout=30)
        found = made.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA:
            raise sqlite3.Error(f"it was written by a newer version (schema {found})")
        made.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; {_TABLES} "
            f"PRAGMA user_version={SCHEMA};"
        )
        return made

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # --- responses ----------------------------------------------------------------------------------------------------

    def put_response(self, tenant: bytes, stored: StoredResponse) -> None:
        """Write a response, over an earlier state of it."""
        self._purge()
        ids = {item["id"] for item in (*stored.input, *stored.body["output"])}
        events = None if stored.events is None else json.dumps(stored.events)
        row = (
            stored.id, tenant, time.time() + self.ttl_s, os.getpid(), json.dumps(stored.body), json.dumps(stored.input),
            events,
        )  # fmt: skip
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO responses (id, tenant, expires, owner, body, input, events) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET body = excluded.body, events = excluded.events",
                row,
            )
            connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", [(one, stored.id) for one in ids])

    def response(self, tenant: bytes, response_id: str) -> StoredResponse | None:
        """A response that has not expired."""
        found = self._rows(
            "SELECT body, input, events FROM responses WHERE id = ? AND tenant = ? AND expires > ?",
            response_id, tenant, time.time(),
        )  # fmt: skip
        if not found:
            return None
        body, given, events = found[0]
        return StoredResponse(
            body=json.loads(body), input=json.loads(given), events=None if events is None else json.loads(events)
        )

    def item(self, tenant: bytes, item_id: str) -> dict[str, Any] | None:
        """An item of any stored response."""
        found = self._rows(
            "SELECT responses.id FROM items JOIN responses ON responses.id = items.response "
            "WHERE items.id = ? AND tenant = ? LIMIT 1",
            item_id, tenant,
        )  # fmt: skip
        stored = self.response(tenant, found[0][0]) if found else None
        if stored is None:
            return None
        return next((item for item in (*stored.input, *stored.body["output"]) if item["id"] == item_id), None)

    def delete_response(self, tenant: bytes, response_id: str) -> bool:
        """Whether there was one."""
        with self._writing() as connection:
            query = "DELETE FROM responses WHERE id = ? AND tenant = ?"
            return connection.execute(query, (response_id, tenant)).rowcount > 0

    def fail_orphans(self, error: Mapping[str, str]) -> int:
        """End responses whose process died while it made them; how many there were."""
        count = 0
        rows = self._rows("SELECT id, owner, body FROM responses")
        for response_id, owner, text in rows:
            body = json.loads(text)
            if body["status"] in ("queued", "in_progress") and not _is_alive(owner):
                body |= {"status": "failed", "error": dict(error)}
                with self._writing() as connection:
                    connection.execute("UPDATE responses SET body = ? WHERE id = ?", (json.dumps(body), response_id))
                count += 1
        return count

    # --- files --------------------------------------------------------------------------------------------------------

    def put_file(self, tenant: bytes, file: StoredFile, content: bytes) -> bool:
        """Write a file; ``False`` if there are too many."""
        self._purge()
        with self._writing() as connection:
            if connection.execute("SELECT COUNT(*) FROM files").fetchone()[0] >= MAX_FILES:
                return False
            row = (file.id, tenant, file.created, file.expires, file.name, file.purpose, content)
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return True

    def files(self, tenant: bytes) -> list[StoredFile]:
        """All files, the oldest first."""
        return self._cards(f"{_CARDS} ORDER BY created, id", tenant, time.time())

    def file(self, tenant: bytes, file_id: str) -> StoredFile | None:
        """A file that has not expired, without its content."""
        found = self._cards(f"{_CARDS} AND id = ?", tenant, time.time(), file_id)
        return found[0] if found else None

    def _cards(self, query: str, *values: Any) -> list[StoredFile]:
        return [
            StoredFile(id=one, created=created, expires=expires, name=name, purpose=purpose, size=size)
            for one, created, expires, name, purpose, size in self._rows(query, *values)
        ]

    def file_content(self, tenant: bytes, file_id: str) -> bytes | None:
        """What is in a file."""
        query = "SELECT content FROM files WHERE id = ? AND tenant = ? AND (expires IS NULL OR expires > ?)"
        found = self._rows(query, file_id, tenant, time.time())
        return bytes(found[0][0]) if found else None

    def delete_file(self, tenant: bytes, file_id: str) -> bool:
        """Whether there was one."""
        with self._writing() as connection:
            query = "DELETE FROM files WHERE id = ? AND tenant = ?"
            return connection.execute(query, (file_id, tenant)).rowcount > 0

    def _purge(self) -> None:
        now = time.time()
        with self._lock:
            if now - self._purged < PURGE_EVERY_S:
                return
            self._purged = now
        with self._writing() as connection:
            connection.execute("DELETE FROM responses WHERE expires <= ?", (now,))
            connection.execute("DELETE FROM files WHERE expires <= ?", (now,))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()  # nobody of this process was there before its store
