"""A run in a terminal: progress, logs and Ctrl-C."""

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
    """The log, and TensorBoard if requested; the stack closes both."""
    log = JsonLog(workspace.log, resume=options.resume)
    stack.callback(log.close)
    listeners: list[Listener] = [log]
    if tensorboard:
        board = TensorBoardLog(workspace.tensorboard)
        stack.callback(board.close)
        listeners.append(board)
    return listeners


def earlier_outcome(options: TrainOptions, workspace: Workspace) -> RunOutcome | None:
    """The outcome of a run that is resumed but has already finished; otherwise None."""
    if options.resume and not options.force and workspace.is_finished():
        return finished_outcome(workspace)
    return None


def finished_outcome(workspace: Workspace) -> RunOutcome:
    """The outcome of a finished run, from its report."""
    report = checkpoint.load(workspace.out).report
    return RunOutcome(report=report, stopped_by=report["training"]["stopped_by"])


class Broadcast:
    """A listener that passes events to many. A full disk costs log lines, but never the run."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners, self._has_reported = listeners, False

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except OutputFailed as error:
                self._report_once(str(error), listener)

    def _report_once(self, sentence: str, about: Listener) -> None:
        """Tell the other listeners, for the first error only."""
        if self._has_reported:
            return
        self._has_reported = True
        for listener in self._listeners:
            if listener is not about:
                listener(Noticed(text=f"{sentence} Training goes on."))
