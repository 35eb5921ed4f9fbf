"""A run as one self-contained page: figures, curves, samples, a verdict, the command to repeat it.

Everything is inside the file: no script, no font and no picture is fetched from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from charlm_model.atomic_files import write_bytes
from charlm_training.report.plot import Curve, Plot
from charlm_training.report.report import Report
from charlm_training.report.svg import svg
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
    model = report["model"]
    title = f"{model['family']} on {report['data']['corpus']}"
    style = files("charlm_training.report").joinpath("page.css").read_text(encoding="utf-8")
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f"<p>{_summary(report)}</p>",
            *_figures(report),
            *_curves(report, records),
            *_samples(report),
            *_notices(records),
            *_repetition(report),
            "</body></html>\n",
        )
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


def _summary(report: Report) -> str:
    model, data, training = report["model"], report["data"], report["training"]
    return escape(
        f"{model['num_parameters']:,} parameters, trained on {data['train_characters']:,} "
        f"characters in {training['elapsed_s']:.1f} s ({training['steps']:,} steps, "
        f"{training['epochs']:.2f} epochs) and evaluated on "
        f"{report['evaluated_characters']:,} characters that it had not seen."
    )


def _figures(report: Report) -> Iterator[str]:
    family = report["model"]["family"]
    rows = [(family, entry) for entry in report["validation"]]
    if family != "ngram":
        name = f"n-gram of order {report['ngram']['order']}"
        rows += [(name, entry) for entry in report["ngram"]["validation"]]
    yield "<h2>How good it is</h2><table><tr><th>model</th><th>protocol</th>"
    yield '<th class="number">nats/token</th><th class="number">bits/character</th>'
    yield '<th class="number">bits/byte</th></tr>'
    for name, entry in rows:
        numbers = (entry[key] for key in ("nats_per_token", "bits_per_character", "bits_per_byte"))
        cells = "".join(f'<td class="number">{number:.4f}</td>' for number in numbers)
        yield f"<tr><td>{escape(name)}</td><td>{escape(entry['protocol'])}</td>{cells}</tr>"
    yield "</table>"


def _curves(report: Report, records: Records) -> Iterator[str]:
    history = history_of(records)
    if not history.training:
        yield "<h2>How it learned</h2><p>By counting, in one pass: there is no curve.</p>"
        return
    yield f"<h2>How it learned</h2><p>{escape(fit_verdict(history))}</p>"
    baseline = report["ngram"]["validation"][0]["nats_per_token"]
    yield _figure(
        Plot(
            title="Loss",
            x_label="share of the run",
            y_label="nats per token",
            curves=[_curve("training", history.training), _curve("unseen", history.validation)],
            levels=[("n-gram", baseline)],
        )
    )
    told = [each for each in records if each["event"] == "progressed"]
    rates = [(each["progress"], each["learning_rate"]) for each in told]
    yield _figure(
        Plot(
            title="Learning rate",
            x_label="share of the run",
            y_label="rate",
            curves=[_curve("learning rate", rates)],
        )
    )


def _curve(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    return Curve(name=name, x=[x for x, _ in points], y=[y for _, y in points])


def _figure(plot: Plot) -> str:
    return f"<figure>{svg(plot)}</figure>"


def _samples(report: Report) -> Iterator[str]:
    family = report["model"]["family"]
    yield "<h2>What it writes</h2>"
    for temperature, text in report["samples"].items():
        yield f"<h3>Temperature {temperature}</h3>"
        if family == "ngram":
            yield f"<pre>{escape(text)}</pre>"
            continue
        other = report["ngram"]["samples"][temperature]
        yield f'<div class="pair"><div>{escape(family)}<pre>{escape(text)}</pre></div>'
        yield f"<div>n-gram<pre>{escape(other)}</pre></div></div>"


def _notices(records: Records) -> Iterator[str]:
    notices = [each["text"] for each in records if each["event"] == "noticed"]
    if notices:
        yield "<h2>What to know</h2><ul>"
        yield from (f"<li>{escape(text)}</li>" for text in notices)
        yield "</ul>"


def _repetition(report: Report) -> Iterator[str]:
    data, training, model = report["data"], report["training"], report["model"]
    told = {
        **{name: model[name] for name in SIZES},
        **{name: value for name, value in training.items() if isinstance(value, int | float)},
        "unit": data["unit"],
        "vocabulary": f"{data['vocabulary']} of {data['vocab_size']}",
        "text (SHA-256)": data["sha256"],
        **report["versions"],
    }
    yield f"<h2>How to repeat it</h2><pre>{escape(training['command'])}</pre><table>"
    for name, value in told.items():
        shown = name.replace("_", " ")
        yield f"<tr><td>{escape(shown)}</td><td>{escape(str(value))}</td></tr>"
    yield "</table>"
