"""A person sees loss, bits per character, speed, time left and samples; a file sees lines."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from charlm_training.monitoring.events import (
    Evaluated,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Sampled,
)
from charlm_training.monitoring.progress import (
    LiveProgress,
    PlainProgress,
    planned_line,
    progress_on,
)

PLANNED = Planned(
    family="lstm",
    num_parameters=12_345,
    vocabulary="char",
    vocab_size=66,
    unit="stream",
    train_characters=1000,
    validation_characters=100,
    hidden_size=32,
    num_layers=1,
    settings={"learning_rate": 0.006},
)
PROGRESSED = Progressed(
    step=1234,
    epoch=0.5,
    progress=0.25,
    loss_nats=1.5,
    bits_per_character=2.164,
    learning_rate=0.01,
    gradient_norm=0.7,
    characters_per_s=56_789.0,
    elapsed_s=30.0,
    remaining_s=3723.0,
)
EVALUATED = Evaluated(
    step=1234,
    progress=0.25,
    nats_per_token=1.6,
    bits_per_character=2.308,
    is_best=True,
    elapsed_s=30.0,
)
EVENTS = [
    PLANNED, PROGRESSED, EVALUATED, Sampled(step=1234, text="once [upon]\na time"),
    Noticed(text="a [repair]"), Finished(stopped_by="budget", report={}),
]  # fmt: skip


def console(*, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=200)


def written(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def test_plain_lines_say_all_there_is_to_know(clock: Any) -> None:
    plain = console(is_terminal=False)

    with PlainProgress(plain, clock) as progress:
        for event in EVENTS:
            progress(event)

    text = written(plain)
    for said in (
        "lstm with 12,345 parameters", "learning rate 0.006",
        "25%  step 1,234", "1.500 nats", "2.164 bits/character", "56,789 characters/s",
        "1:02:03 left", "validation slice: 1.6000 nats", "best so far",
        r"'once [upon]\na time'", "Note: a [repair]",
    ):  # fmt: skip
        assert said in text
    assert "\x1b" not in text


def test_tables_have_no_layers() -> None:
    tables = replace(PLANNED, family="ngram", settings={"order": 6})

    assert "(hidden size 32, 1 layers)" in planned_line(PLANNED)
    assert "layers" not in planned_line(tables)
    assert "order 6" in planned_line(tables)


def test_plain_steps_come_every_few_seconds(clock: Any) -> None:
    plain = console(is_terminal=False)

    with PlainProgress(plain, clock) as progress:
        for step in range(100):
            progress(replace(PROGRESSED, step=step))
            clock.now += 1

    assert written(plain).count("step") == 20


def test_a_terminal_gets_a_live_view() -> None:
    live = console(is_terminal=True)

    with LiveProgress(live) as progress:
        for event in EVENTS:
            progress(event)

    text = written(live)
    for said in ("56,789 characters/s", "once [upon]", "sample at step 1,234", "a [repair]"):
        assert said in text


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, LiveProgress), (False, PlainProgress)])
def test_the_view_suits_where_it_goes(is_terminal: bool, kind: type) -> None:
    assert isinstance(progress_on(console(is_terminal=is_terminal)), kind)
