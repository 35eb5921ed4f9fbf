"""The report of a run: the sections of `report.json`, and the lines printed at the end."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charlm_model.language_model import LanguageModel
from charlm_model.scoring import Evaluation
from charlm_training.corpus.dataset import Data

Report = dict[str, Any]


def data_section(data: Data, validation_fraction: float) -> Report:
    """The source of the text and its split; enough to split it the same way again."""
    return {
        "corpus": data.corpus.name,
        "sha256": data.stats.sha256,
        "num_characters": data.stats.num_characters,
        "num_bytes": data.stats.num_bytes,
        "unit": data.unit,
        "vocabulary": data.vocabulary.kind,
        "vocab_size": data.vocabulary.size,
        "validation_fraction": validation_fraction,
        "train_characters": data.train.num_characters,
        "validation_characters": data.validation.num_characters,
        "unknown_validation_characters": data.validation.num_unknown,
        "notices": data.notices(),
    }


def model_section(model: LanguageModel) -> Report:
    return {**model.config.to_json(), "num_parameters": model.num_parameters}


def evaluations_section(evaluations: Iterable[Evaluation]) -> list[Report]:
    return [dict(evaluation.to_json()) for evaluation in evaluations]


def versions_section() -> Report:
    return {
        "charlm": _version("charlm"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def training_lines(report: Report, out: Path, page: Path) -> list[str]:
    """The lines printed at the end of a run."""
    training, model = report["training"], report["model"]
    how = f"{training['steps']:,} steps, {training['epochs']:.2f} epochs"
    return [
        f"Trained {model['family']} with {model['num_parameters']:,} parameters on "
        f"{report['data']['corpus']} in {training['elapsed_s']:.1f} s ({how}).",
        *evaluation_lines(report["validation"], report["evaluated_characters"]),
        *baseline_lines(report),
        f"Saved in {out}. Serve it: charlm serve {out}",
        *([f"Page with curves and samples: {page}"] if page.exists() else []),
    ]


def evaluation_report_lines(report: Report) -> list[str]:
    """The lines that `charlm evaluate` prints."""
    part = "the validation part" if report["part"] == "validation" else "the whole"
    unknown = report["unknown_characters"]
    said = (
        [f"{unknown:,} characters are not in the vocabulary; they were replaced."]
        if unknown
        else []
    )
    return [
        f"{report['family']} in {report['checkpoint']}, on {part} of {report['corpus']}.",
        *evaluation_lines(report["validation"], report["evaluated_characters"]),
        *said,
    ]


def evaluation_lines(evaluations: Sequence[Report], num_characters: int) -> list[str]:
    return [
        f"Evaluated on {num_characters:,} characters:",
        *(
            f"  {entry['protocol']:<38}{entry['nats_per_token']:.4f} nats/token  "
            f"{entry['bits_per_character']:.4f} bits/character  "
            f"{entry['bits_per_byte']:.4f} bits/byte"
            for entry in evaluations
        ),
    ]


def baseline_lines(report: Report) -> list[str]:
    """The figures of the n-gram, by the same protocols, and whether the model beats them."""
    if report["model"]["family"] == "ngram":
        return ["This model is the baseline: every other family should have lower figures."]
    baseline = report["ngram"]
    ours = report["validation"][0]["bits_per_character"]
    theirs = baseline["validation"][0]["bits_per_character"]
    verdict = "beaten" if ours < theirs else "not beaten"
    figures = ", ".join(
        f"{entry['nats_per_token']:.4f} nats ({entry['protocol']})"
        for entry in baseline["validation"]
    )
    limit = baseline["validation_characters"]
    where = (
        "" if limit == report["evaluated_characters"] else f", on the first {limit:,} characters"
    )
    return [f"Baseline, an n-gram of order {baseline['order']}: {figures}{where}: {verdict}."]


def print_lines(lines: Iterable[str], data: Report, *, as_json: bool) -> None:
    """Print the lines, or with `as_json` the data as one JSON object."""
    print(json.dumps(data, ensure_ascii=False) if as_json else "\n".join(lines), flush=True)
