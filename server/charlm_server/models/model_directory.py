"""The directory of checkpoints to load. Names in requests are never used as paths."""

import hashlib
import os
from pathlib import Path

from charlm_model.atomic_files import read_bytes
from charlm_model.checkpoint import MANIFEST, MAX_FILE_BYTES
from charlm_server.config.checkpoint_names import MARKER, NAME
from charlm_server.errors.base import ServeError
from charlm_server.errors.models import CheckpointUnknown

Version = tuple[tuple[str, int, int, int], ...]


class ModelDirectory:
    """A directory whose entries are checkpoints. No link leads out of it."""

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise ServeError(f"--model-root {directory} is no directory; make it first.")
        self._directory = directory.resolve()

    def checkpoint(self, name: str) -> Path:
        """The path of an entry. Raises CheckpointUnknown."""
        directory = self._directory / name
        if not NAME.fullmatch(name) or not (directory / MARKER).is_file():
            raise CheckpointUnknown(name)
        if not all(self._is_inside(path) for path in (directory, *directory.iterdir())):
            raise CheckpointUnknown(name)
        return directory

    def names(self) -> list[str]:
        """Entries that look like checkpoints; empty if the directory cannot be read."""
        try:
            found = [path.parent.name for path in self._directory.glob(f"*/{MARKER}")]
        except OSError:
            return []
        return sorted(name for name in found if NAME.fullmatch(name))

    def version(self, name: str) -> Version:
        """Differs once any file of the checkpoint was written or replaced; empty if it is gone."""
        try:
            with os.scandir(self._directory / name) as entries:
                stats = [(entry.name, entry.stat()) for entry in entries]
        except OSError:
            return ()
        return tuple(sorted((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats))

    def digest(self, name: str) -> str:
        """SHA-256 of the manifest, which identifies the files; empty if it cannot be read."""
        try:
            return hashlib.sha256(
                read_bytes(self._directory / name / MANIFEST, MAX_FILE_BYTES)
            ).hexdigest()
        except OSError:
            return ""

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._directory)
