"""A run with a person watching: progress, logs and Ctrl-C."""

from __future__ import annotations

from contextlib import ExitStack

from rich.console import Console

from charlm_model import checkpoint
from charlm_training.events import Event, Listener, Noticed
from charlm_training.log import JsonLog, TensorBoardLog
from charlm_training.options import TrainOptions
from charlm_training.page import write_page
from charlm_training.progress import progress_on
from charlm_training.run import Outcome, Run
from charlm_training.signals import interruption
from charlm_training.workspace import Workspace


def train_in_terminal(options: TrainOptions, *, tensorboard: bool) -> Outcome:
    """Train; progress goes to stderr, so that stdout holds the report alone."""
    workspace = Workspace(options.out)
    if options.resume and not options.force and workspace.is_finished():
        return finished_outcome(workspace)
    workspace.prepare(force=options.force, resume=options.resume)
    with ExitStack() as stack:
        log = JsonLog(workspace.log, resume=options.resume)
        stack.callback(log.close)
        listeners: list[Listener] = [log]
        if tensorboard:
            board = TensorBoardLog(workspace.tensorboard)
            stack.callback(board.close)
            listeners.append(board)
        is_interrupted = stack.enter_context(interruption())
        listeners.append(stack.enter_context(progress_on(Console(stderr=True))))
        broadcast = Broadcast(listeners)
        outcome = Run(options, broadcast, is_interrupted).train()
        try:
            write_page(workspace.page, outcome.report, workspace.log)
        except OSError as error:
            broadcast(Noticed(text=f"The page could not be written: {error.strerror}."))
        return outcome


def finished_outcome(workspace: Workspace) -> Outcome:
    """A run that is over is not made again: its report says how it ended."""
    report = checkpoint.load(workspace.out).report
    return Outcome(report=report, stopped_by=report["training"]["stopped_by"])


class Broadcast:
    """One listener that tells many."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
