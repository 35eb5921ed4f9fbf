"""Who may call: tokens known by their hashes, what each may do, and how often.

The file is TOML: one [[tokens]] for each, with name, sha256, roles, and optionally
calls_per_minute and max_concurrent. It is read again when it changes.
"""

import hashlib
import logging
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charlm_server.errors import NotAllowed, QuotaExceeded, ServeError, Unauthenticated

logger = logging.getLogger(__name__)

ROLES = ("generate", "score", "state", "admin")
# The name of whoever made the call that is being answered; empty where everyone may call.
PRESENT: ContextVar[str] = ContextVar("caller", default="")
KNOWN = {"name", "sha256", "roles", "calls_per_minute", "max_concurrent"}


@dataclass(kw_only=True, slots=True)
class Caller:
    """One token's holder, and what it has used. Of the loop alone."""

    name: str
    sha256: str
    roles: frozenset[str]
    calls_per_minute: int | None = None
    max_concurrent: int | None = None
    num_open: int = 0
    allowance: float = field(default=0.0)  # calls that may begin now: a bucket that refills
    filled_at: float = field(default=float("-inf"))

    @contextmanager
    def calling(self, role: str | None, now: float) -> Iterator[None]:
        """Around one call; raises unless it may begin. Role None needs a token only."""
        if role is not None and role not in self.roles:
            raise NotAllowed(self.name, role)
        if self.max_concurrent is not None and self.num_open >= self.max_concurrent:
            raise QuotaExceeded(f"{self.max_concurrent} calls at once", 1.0)
        self._spend(now)
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1

    def _spend(self, now: float) -> None:
        if self.calls_per_minute is None:
            return
        per_s = self.calls_per_minute / 60
        refilled = self.allowance + (now - self.filled_at) * per_s
        self.allowance, self.filled_at = min(refilled, self.calls_per_minute), now
        if self.allowance < 1:
            wait_s = (1 - self.allowance) / per_s
            raise QuotaExceeded(f"{self.calls_per_minute} calls a minute", wait_s)
        self.allowance -= 1


class Callers:
    """All tokens of a file. Raises ServeError if the file will not do at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._present_version()
        self._by_hash = {caller.sha256: caller for caller in callers_from(path)}

    def caller(self, token: str) -> Caller:
        """Raises Unauthenticated. Looks hashes up, so that timing tells nothing of a token."""
        self._follow_file()
        found = self._by_hash.get(hashlib.sha256(token.encode()).hexdigest())
        if found is None or not token:
            raise Unauthenticated
        return found

    def _follow_file(self) -> None:
        version = self._present_version()
        if version is None or version == self._version:
            return
        self._version = version
        try:
            fresh = {caller.sha256: caller for caller in callers_from(self._path)}
        except ServeError as error:
            logger.error("the old tokens stay: %s", error)
            return
        for key in fresh.keys() & self._by_hash.keys():  # what was used stays used
            old = self._by_hash[key]
            fresh[key].num_open, fresh[key].allowance = old.num_open, old.allowance
            fresh[key].filled_at = old.filled_at
        self._by_hash = fresh
        logger.warning("%d tokens were read again", len(fresh))

    def _present_version(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino


def callers_from(path: Path) -> list[Caller]:
    """Raises ServeError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("tokens", [])
        return [_caller_from(table) for table in tables]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ServeError(f"The tokens of {path} cannot be read: {error}.") from error


def _caller_from(table: dict[str, Any]) -> Caller:
    name, digest = table.get("name", ""), str(table.get("sha256", "")).lower()
    roles = frozenset(table.get("roles", ()))
    if not isinstance(name, str):
        raise ValueError(f"the name of a token is {name!r}, but must be a text")
    if unknown := sorted(table.keys() - KNOWN) or sorted(roles - set(ROLES)):
        raise ValueError(f"token {name!r} has unknown {', '.join(unknown)}")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"the sha256 of token {name!r} is not 64 hexadecimal digits")
    for key in ("calls_per_minute", "max_concurrent"):
        if key in table and (type(table[key]) is not int or table[key] < 1):
            raise ValueError(f"{key} of token {name!r} is {table[key]!r}, but must be 1 or more")
    return Caller(**{**table, "sha256": digest, "roles": roles})
