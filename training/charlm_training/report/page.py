"""A run as one self-contained page: figures, curves, samples, a verdict, the command to repeat it.

Everything is inside the file: it has no script, and fetches no font or picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from charlm_model.atomic_files import write_bytes
from charlm_training.report.drawing import svg
from charlm_training.report.plot import Curve, Plot
from charlm_training.report.report import Report
from charlm_training.report.verdict import History, fit_verdict

Records = Sequence[dict[str, Any]]
# A single step's loss is noisy: training ends at the mean of so many last reports.
LAST_REPORTS = 10
SIZES = ("hidden_size", "num_layers", "num_heads", "embedding_size", "context_length", "dropout")


def write_page(path: Path, report: Report, log: Path) -> None:
    """Raises OSError when the disk would not take it."""
    lines = log.read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line]
    write_bytes(path, page(report, records).encode())


def page(report: Report, records: Records) -> str:
    """The whole page as HTML. `records` are the lines of the run's log."""
    model, data, training = report["model"], report["data"], report["training"]
    history = history_of(records)
    return _template().render(
        title=f"{model['family']} on {data['corpus']}",
        style=Markup(_read("page.css")),
        report=report,
        model=model,
        data=data,
        training=training,
        evaluations=_evaluations(report),
        verdict=fit_verdict(history) if history.training else "Counted in one pass: no curve.",
        plots=[Markup(svg(plot)) for plot in _plots(report, records, history)],
        notices=[each["text"] for each in records if each["event"] == "noticed"],
        settings=_settings(report),
    )


def history_of(records: Records) -> History:
    """What the log says about the losses, in the order of the run."""
    told = [each for each in records if each["event"] == "progressed" and each["loss_nats"]]
    training = [(each["progress"], each["loss_nats"]) for each in told]
    last = training[-LAST_REPORTS:]
    if last:
        training.append((last[-1][0], sum(loss for _, loss in last) / len(last)))
    validation = [
        (each["progress"], each["nats_per_token"])
        for each in records
        if each["event"] == "evaluated" and each["nats_per_token"] is not None
    ]
    return History(training=training, validation=validation)


@cache
def _template() -> Template:
    """Escapes every value that is no Markup; a name that the report lacks is an error."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("page.html.jinja"))


def _read(name: str) -> str:
    return files("charlm_training.report").joinpath(name).read_text(encoding="utf-8")


def _evaluations(report: Report) -> list[tuple[str, dict[str, Any]]]:
    family = report["model"]["family"]
    rows = [(family, entry) for entry in report["validation"]]
    if family != "ngram":
        name = f"n-gram of order {report['ngram']['order']}"
        rows += [(name, entry) for entry in report["ngram"]["validation"]]
    return rows


def _plots(report: Report, records: Records, history: History) -> list[Plot]:
    if not history.training:
        return []
    reports = [each for each in records if each["event"] == "progressed"]
    rates = [(each["progress"], each["learning_rate"]) for each in reports]
    loss = Plot(
        title="Loss",
        x_label="share of the run",
        y_label="nats per token",
        curves=[_curve("training", history.training), _curve("validation", history.validation)],
        levels=[("n-gram", report["ngram"]["validation"][0]["nats_per_token"])],
    )
    rate = Plot(
        title="Learning rate",
        x_label="share of the run",
        y_label="rate",
        curves=[_curve("learning rate", rates)],
    )
    return [loss, rate]


def _curve(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    return Curve(name=name, x=[x for x, _ in points], y=[y for _, y in points])


def _settings(report: Report) -> dict[str, Any]:
    """What a run depends on, and its counts."""
    data, training, model = report["data"], report["training"], report["model"]
    return {
        **{name: model[name] for name in SIZES},
        **{name: value for name, value in training.items() if isinstance(value, int | float)},
        "unit": data["unit"],
        "vocabulary": f"{data['vocabulary']} of {data['vocab_size']}",
        "text (SHA-256)": data["sha256"],
        **report["versions"],
    }
