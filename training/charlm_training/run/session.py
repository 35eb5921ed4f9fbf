"""A run with a person watching: progress, logs and Ctrl-C."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

from rich.console import Console

from charlm_model import checkpoint
from charlm_training.errors import OutputFailed
from charlm_training.monitoring.events import Event, Listener, Noticed
from charlm_training.monitoring.log import JsonLog, TensorBoardLog
from charlm_training.monitoring.progress import progress_on
from charlm_training.planning.options import TrainOptions
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.report.page import write_page
from charlm_training.run.run import Run, RunOutcome
from charlm_training.run.signals import interruption
from charlm_training.run.workspace import Workspace

View = AbstractContextManager[Listener]


def train_in_terminal(
    options: TrainOptions,
    *,
    tensorboard: bool,
    group: ProcessGroup = SINGLE_PROCESS,
    view: View | None = None,
) -> RunOutcome:
    """Train; progress goes to stderr, so that stdout holds the report alone, or to the `view`.

    Of several processes only the first one logs, shows progress and writes.
    """
    workspace = Workspace(options.out)
    finished = group.run_on_first(lambda: earlier_outcome(options, workspace))
    if finished is not None:
        return finished
    group.run_on_first(lambda: workspace.prepare(force=options.force, resume=options.resume))
    with ExitStack() as stack:
        is_interrupted = stack.enter_context(interruption())
        listeners: list[Listener] = []
        if group.is_first:
            listeners += listeners_of(options, workspace, stack, tensorboard)
            listeners.append(stack.enter_context(view or progress_on(Console(stderr=True))))
        broadcast = Broadcast(listeners)
        outcome = Run(options, broadcast, is_interrupted, group=group).train()
        if group.is_first:
            try:
                write_page(workspace.page, outcome.report, workspace.log)
            except OSError as error:
                broadcast(Noticed(text=f"The page could not be written: {error.strerror}."))
        return outcome


def listeners_of(
    options: TrainOptions, workspace: Workspace, stack: ExitStack, tensorboard: bool
) -> list[Listener]:
    """The log, and TensorBoard on request; closed with the stack."""
    log = JsonLog(workspace.log, resume=options.resume)
    stack.callback(log.close)
    listeners: list[Listener] = [log]
    if tensorboard:
        board = TensorBoardLog(workspace.tensorboard)
        stack.callback(board.close)
        listeners.append(board)
    return listeners


def earlier_outcome(options: TrainOptions, workspace: Workspace) -> RunOutcome | None:
    """How the run ended that is to be resumed; None if there is something left to do."""
    if options.resume and not options.force and workspace.is_finished():
        return finished_outcome(workspace)
    return None


def finished_outcome(workspace: Workspace) -> RunOutcome:
    """A run that is over is not made again: its report says how it ended."""
    report = checkpoint.load(workspace.out).report
    return RunOutcome(report=report, stopped_by=report["training"]["stopped_by"])


class Broadcast:
    """One listener that tells many. A full disk costs a line of the log, never the run."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners, self._has_complained = listeners, False

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except OutputFailed as error:
                self._complain(str(error), listener)

    def _complain(self, sentence: str, about: Listener) -> None:
        """Once to the others: every event of a long run would be too much."""
        if self._has_complained:
            return
        self._has_complained = True
        for listener in self._listeners:
            if listener is not about:
                listener(Noticed(text=f"{sentence} Training goes on."))
