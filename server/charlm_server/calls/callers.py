"""Callers: their tokens, by hash, with roles and quotas.

The file is TOML: one [[tokens]] for each, with name, sha256, roles, and optionally
calls_per_minute and max_concurrent. It is read again when it changes.
"""

import hashlib
import logging
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charlm_server.errors.auth import NotAllowed, Unauthenticated
from charlm_server.errors.base import ServeError
from charlm_server.errors.overload import QuotaExceeded

logger = logging.getLogger(__name__)

ROLES = ("generate", "score", "state", "admin")
KNOWN = {"name", "sha256", "roles", "calls_per_minute", "max_concurrent"}


@dataclass(slots=True)
class Use:
    """A caller's use of its quotas. It is kept when the file of tokens is reloaded."""

    num_open: int = 0
    allowance: float = 0.0  # calls that may begin now: a bucket that refills
    filled_at: float = float("-inf")


@dataclass(kw_only=True, slots=True)
class Caller:
    """The holder of one token. Only for the event loop's thread."""

    name: str
    sha256: str
    roles: frozenset[str]
    calls_per_minute: int | None = None
    max_concurrent: int | None = None
    use: Use = field(default_factory=Use)

    def begin(self, role: str | None, now: float) -> None:
        """Begin a call; `end` must follow. Role None is any. Raises NotAllowed or QuotaExceeded."""
        if role is not None and role not in self.roles:
            raise NotAllowed(self.name, role)
        if self.max_concurrent is not None and self.use.num_open >= self.max_concurrent:
            raise QuotaExceeded(f"{self.max_concurrent} calls at once", 1.0)
        self._spend(now)
        self.use.num_open += 1

    def end(self) -> None:
        self.use.num_open -= 1

    def _spend(self, now: float) -> None:
        if self.calls_per_minute is None:
            return
        per_s, use = self.calls_per_minute / 60, self.use
        refilled = use.allowance + (now - use.filled_at) * per_s
        use.allowance, use.filled_at = min(refilled, self.calls_per_minute), now
        if use.allowance < 1:
            wait_s = (1 - use.allowance) / per_s
            raise QuotaExceeded(f"{self.calls_per_minute} calls a minute", wait_s)
        use.allowance -= 1


class Callers:
    """All tokens of a file. Raises ServeError if it cannot be read at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._present_version()
        self._by_hash = {caller.sha256: caller for caller in callers_from(path)}

    def caller(self, token: str) -> Caller:
        """Raises Unauthenticated. Looks hashes up, so that timing reveals nothing about a token."""
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
        for key in fresh.keys() & self._by_hash.keys():  # quotas are not reset
            fresh[key].use = self._by_hash[key].use
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
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a token is {name!r}; it must be a text")
    if unknown := sorted(table.keys() - KNOWN) or sorted(roles - set(ROLES)):
        raise ValueError(f"token {name!r} has unknown {', '.join(unknown)}")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"the sha256 of token {name!r} is not 64 hexadecimal digits")
    for key in ("calls_per_minute", "max_concurrent"):
        if key in table and (type(table[key]) is not int or table[key] < 1):
            raise ValueError(f"{key} of token {name!r} is {table[key]!r}; it must be 1 or more")
    return Caller(**{**table, "sha256": digest, "roles": roles})
