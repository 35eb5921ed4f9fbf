"""Evaluates a checkpoint on a corpus; on its training corpus, only the validation part."""

from __future__ import annotations

import tempfile
from pathlib import Path

from charlm_model import checkpoint
from charlm_training.corpus.dataset import EncodedText, Encoder, split_corpus
from charlm_training.corpus.reader import Corpus, CorpusStats, open_corpus
from charlm_training.evaluation.batched import evaluate
from charlm_training.evaluation.exact import evaluate_exactly
from charlm_training.report.report import Report, evaluations_section


def evaluate_checkpoint(directory: Path, corpus_name: str, *, exact: bool = False) -> Report:
    """The figures of a checkpoint.

    A text that it was trained on is cut as it was then, and its validation part evaluated; any
    other text is evaluated as a whole. `exact` ones are in the arithmetic of a server.
    """
    loaded = checkpoint.load(directory)
    corpus = open_corpus(corpus_name)
    stats = corpus.scan()
    data = loaded.report["data"]
    is_own = stats.sha256 == data["sha256"]
    with tempfile.TemporaryDirectory(prefix="charlm-evaluate-") as folder:
        encoder = Encoder(loaded.vocabulary, loaded.config.unit)
        path = Path(folder) / "evaluated.tokens"
        part = (
            _validation(encoder, corpus, stats, loaded.report, path, is_cut=not exact)
            if is_own
            else (encoder.write(corpus.chunks(), path))
        )
        evaluations = (evaluate_exactly if exact else evaluate)(loaded.model, part)
    return {
        "checkpoint": str(directory),
        "digest": loaded.digest,
        "family": loaded.config.family,
        "corpus": corpus_name,
        "sha256": stats.sha256,
        "part": "validation" if is_own else "whole",
        "evaluated_characters": part.num_characters,
        "unknown_characters": part.num_unknown,
        "validation": evaluations_section(evaluations),
    }


def _validation(
    encoder: Encoder,
    corpus: Corpus,
    stats: CorpusStats,
    report: Report,
    path: Path,
    *,
    is_cut: bool,
) -> EncodedText:
    """The validation part; if `is_cut`, as much of it as the final evaluation of training used."""
    data = report["data"]
    split = split_corpus(corpus, stats, data["unit"], data["validation_fraction"])
    part = encoder.write(split.validation(corpus.chunks()), path)
    if not is_cut:
        return part
    return part.first(report.get("evaluated_tokens", len(part.ids_N) - 1))
