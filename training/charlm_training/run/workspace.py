"""The directories of a run: the checkpoint, and the files that only training needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm_model.checkpoint import REPORT
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
    def state(self) -> Path:
        return self.run / "state"

    @property
    def log(self) -> Path:
        return self.run / "log.jsonl"

    @property
    def page(self) -> Path:
        return self.run / "report.html"

    @property
    def tensorboard(self) -> Path:
        return self.run / "tensorboard"

    def prepare(self, *, force: bool, resume: bool = False) -> None:
        """Make the directories. Only a checkpoint is ever replaced, and only with `force`.

        With `resume`, the files of the earlier process are kept; its best model may be replaced.
        """
        self._refuse_to_overwrite(force or (resume and not self.is_finished()))
        try:
            if not resume:
                shutil.rmtree(self.run, ignore_errors=True)
            self.tokens.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputFailed(
                f"Cannot make the directory {self.run}: {error.strerror}."
            ) from error

    def is_finished(self) -> bool:
        """Whether `out` holds the model of a finished run, with nothing to resume."""
        report = self._report()
        return bool(report) and report["is_finished"] and not self.state.exists()

    def _report(self) -> dict[str, Any]:
        """The training section of the report; empty without a checkpoint."""
        try:
            section: dict[str, Any] = json.loads((self.out / REPORT).read_bytes())["training"]
        except (OSError, ValueError, KeyError):
            return {}
        return section

    def clean(self) -> None:
        """Remove the token files, which can be made again from the corpus."""
        shutil.rmtree(self.tokens, ignore_errors=True)

    def _refuse_to_overwrite(self, force: bool) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise OutputInTheWay(f"--out is {self.out}, which is a file; name a directory.")
        if not any(self.out.iterdir()):
            return
        if not (self.out / CHECKPOINT_MARK).exists():
            raise OutputInTheWay(
                f"--out is {self.out}, which has files but no checkpoint; name another directory."
            )
        if not force:
            raise OutputInTheWay(
                f"--out is {self.out}, which has a checkpoint already; name another directory, or "
                "add --force to replace it."
            )
