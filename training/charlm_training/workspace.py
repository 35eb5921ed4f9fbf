"""The directories of a run: the checkpoint itself, and beside it what only training needs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from charlm_training.errors import OutputFailed, OutputInTheWay

CHECKPOINT_MARK = "config.json"


@dataclass(frozen=True, slots=True)
class Workspace:
    """`out` will hold the checkpoint and nothing else; `out`.run holds the log and token files.

    They are apart because a checkpoint is replaced as a whole, by renaming its directory.
    """

    out: Path

    @property
    def run(self) -> Path:
        return self.out.with_name(self.out.name + ".run")

    @property
    def tokens(self) -> Path:
        return self.run / "tokens"

    @property
    def log(self) -> Path:
        return self.run / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.run / "tensorboard"

    def prepare(self, *, force: bool) -> None:
        """Make room. Only a checkpoint is ever replaced, and only when that was asked for."""
        self._refuse_to_overwrite(force)
        try:
            shutil.rmtree(self.run, ignore_errors=True)
            self.tokens.mkdir(parents=True)
        except OSError as error:
            raise OutputFailed(
                f"Cannot make the directory {self.run}: {error.strerror}."
            ) from error

    def clean(self) -> None:
        """Remove what can be made again from the corpus."""
        shutil.rmtree(self.tokens, ignore_errors=True)

    def _refuse_to_overwrite(self, force: bool) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise OutputInTheWay(f"--out {self.out} is a file; name a directory that can be made.")
        if not any(self.out.iterdir()):
            return
        if not (self.out / CHECKPOINT_MARK).exists():
            raise OutputInTheWay(
                f"--out {self.out} holds files that are no checkpoint; name another directory."
            )
        if not force:
            raise OutputInTheWay(
                f"--out {self.out} holds a checkpoint already; name another directory, or add "
                "--force to replace it."
            )
