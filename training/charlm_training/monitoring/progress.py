"""Shows the progress of a run: a live view in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from charlm_training.monitoring.events import (
    Evaluated,
    Event,
    Finished,
    Listener,
    Noticed,
    Planned,
    Progressed,
    Resumed,
    Sampled,
)

PLAIN_INTERVAL_S = 5.0


def planned_line(event: Planned) -> str:
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value:g}" for name, value in event.settings.items()
    )
    is_network = event.family != "ngram"
    shape = f" (hidden size {event.hidden_size}, {event.num_layers} layers)" if is_network else ""
    return (
        f"{event.family} with {event.num_parameters:,} parameters{shape}, "
        f"{event.vocabulary} vocabulary of {event.vocab_size}; "
        f"{event.train_characters:,} characters to train on, "
        f"{event.validation_characters:,} to validate on; {settings}."
    )


def progressed_line(event: Progressed) -> str:
    return (
        f"{event.progress:4.0%}  step {event.step:,}  epoch {event.epoch:.2f}  "
        f"loss {event.loss_nats:.3f} nats  {event.bits_per_character:.3f} bits/character  "
        f"{event.characters_per_s:,.0f} characters/s  {_duration(event.remaining_s)} left"
    )


def evaluated_line(event: Evaluated) -> str:
    best = "  best so far" if event.is_best else ""
    return (
        f"      validation slice: {event.nats_per_token:.4f} nats, "
        f"{event.bits_per_character:.3f} bits/character{best}"
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class PlainProgress:
    """One line an event; lines of steps at most every few seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._last_s = -PLAIN_INTERVAL_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        del error

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._print(planned_line(event))
            case Progressed():
                self._print_seldom(progressed_line(event))
            case Evaluated():
                self._print(evaluated_line(event))
            case Sampled():
                self._print(f"      sample: {event.text!r}")
            case Noticed():
                self._print(f"Note: {event.text}")
            case Resumed():
                self._print(f"Resumed at step {event.step:,}.")
            case Finished():
                pass  # the report is printed by the command itself

    def _print_seldom(self, line: str) -> None:
        if self._clock() - self._last_s >= PLAIN_INTERVAL_S:
            self._last_s = self._clock()
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class LiveProgress:
    """A bar, the latest numbers and the latest sample, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._progress: Progressed | None = None
        self._evaluated: Evaluated | None = None
        self._sample: Sampled | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._print(planned_line(event))
            case Noticed():
                self._print(f"Note: {event.text}")
            case Resumed():
                self._print(f"Resumed at step {event.step:,}.")
            case Progressed():
                self._progress = event
            case Evaluated():
                self._evaluated = event
            case Sampled():
                self._sample = event
            case Finished():
                pass  # the report is printed by the command itself
        self._live.update(self._view())

    def _view(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._progress is not None:
            # A bar ends no line by itself; padding does.
            parts.append(Padding(ProgressBar(total=1.0, completed=self._progress.progress)))
            parts.append(Text(progressed_line(self._progress)))
        if self._evaluated is not None:
            parts.append(Text(evaluated_line(self._evaluated), style="cyan"))
        if self._sample is not None:
            title = f"sample at step {self._sample.step:,}"
            parts.append(Panel(Text(self._sample.text), title=title, title_align="left"))
        return Group(*parts)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)


def progress_on(console: Console) -> AbstractContextManager[Listener]:
    """A live view for a terminal, otherwise plain lines."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
