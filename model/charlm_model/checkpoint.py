"""A checkpoint: a directory with all that a model needs, and a digest of each of its files.

It is never unpickled. `manifest.json` holds the SHA-256 of every other file.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from charlm_model.atomic_files import json_bytes, read_bytes, sync_directory
from charlm_model.config import ModelConfig
from charlm_model.errors import (
    CheckpointCorrupt,
    CheckpointNotFound,
    GoldenMismatch,
    InvalidConfig,
    UnsupportedFormat,
)
from charlm_model.families.registry import restore
from charlm_model.language_model import LanguageModel
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import END_OF_TEXT_ID, ByteVocabulary, CharVocabulary, Vocabulary

FORMAT_VERSION = 1
WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.json"
PIECES, REPORT, MANIFEST = "sentencepiece.model", "report.json", "manifest.json"
MAX_FILE_BYTES = 8 << 30
GOLDEN_TOLERANCE_NATS = 1e-3
# Sums in another order move numbers that are kept in bfloat16 to the other neighbor now and then:
# by 4e-4 nats in the walk of a trained Transformer, 5e-6 in that of an LSTM, which keeps float32.
DEVICE_TOLERANCE_NATS = 0.02
_NUM_GOLDEN_TOKENS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A loaded model with all that came with it."""

    model: LanguageModel
    vocabulary: Vocabulary
    report: dict[str, Any]
    digest: str
    """SHA-256 of the manifest, in hexadecimal: the identity of these exact files."""

    @property
    def config(self) -> ModelConfig:
        return self.model.config


def save(
    directory: Path, model: LanguageModel, vocabulary: Vocabulary, report: dict[str, Any]
) -> None:
    """Write a checkpoint so that the directory holds, at every moment, the old one or the new."""
    was_training = model.training
    model.eval()
    report = {**report, "golden": _golden(model)}
    model.train(was_training)
    files = _files_of(model, vocabulary, report)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}.new-"))
    try:
        fresh.chmod(0o755)
        for name, data in files.items():
            _write_synced(fresh / name, data)
        sync_directory(fresh)
        _swap_in(fresh, directory)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def load(directory: Path) -> Checkpoint:
    """Read and check a checkpoint; the model is in eval mode.

    Raises CheckpointNotFound, UnsupportedFormat or CheckpointCorrupt, naming path and file.
    """
    files, digest = _read_checked(directory)
    try:
        config_json = _document(files, CONFIG)
        del config_json["format_version"]
        config = ModelConfig.from_json(config_json)
        vocabulary = _vocabulary_from(files)
        if vocabulary.size != config.vocab_size:
            sizes = f"{vocabulary.size} tokens, but vocab_size is {config.vocab_size}"
            raise ValueError(f"{VOCABULARY} has {sizes}")
        model = restore(config, safetensors.torch.load(files[WEIGHTS]))
        report = _document(files, REPORT)
    except (InvalidConfig, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointCorrupt(f"The checkpoint {directory} cannot be used: {error}") from error
    model.eval()
    return Checkpoint(model=model, vocabulary=vocabulary, report=report, digest=digest)


def verify_golden(checkpoint: Checkpoint) -> None:
    """Raises GoldenMismatch unless this machine computes the log-probs that were recorded.

    CheckpointCorrupt where none are, or none that a model can have.
    """
    ids, recorded = _recorded(checkpoint)
    worst = _distance(_logprobs(checkpoint.model, ids), recorded)
    if not worst <= GOLDEN_TOLERANCE_NATS:
        raise GoldenMismatch(
            f"The checkpoint's recorded log-probs differ by up to {worst:.2g} nats from those "
            f"computed here (allowed: {GOLDEN_TOLERANCE_NATS}). Train it again with this version."
        )


def verify_on_device(model: LanguageModel, here: LanguageModel) -> None:
    """Raises GoldenMismatch unless a model on a device tells the log-probs of its like here."""
    ids = _walk(model.config.vocab_size)
    worst = _distance(_logprobs(model, ids), _logprobs(here, ids))
    if not worst <= DEVICE_TOLERANCE_NATS:
        raise GoldenMismatch(
            f"Log-probs computed on {model.device} differ by up to {worst:.2g} nats from those of "
            f"the processor (allowed: {DEVICE_TOLERANCE_NATS}). Serve the model on the processor."
        )


def _files_of(
    model: LanguageModel, vocabulary: Vocabulary, report: dict[str, Any]
) -> dict[str, bytes]:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    files = {
        WEIGHTS: safetensors.torch.save(tensors),
        CONFIG: json_bytes({"format_version": FORMAT_VERSION, **model.config.to_json()}),
        VOCABULARY: json_bytes(vocabulary.to_json()),
        REPORT: json_bytes(report),
    }
    if isinstance(vocabulary, SentencePieceVocabulary):
        files[PIECES] = vocabulary.serialized_model
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    files[MANIFEST] = json_bytes({"sha256": digests})
    return files


def _document(files: dict[str, bytes], name: str) -> dict[str, Any]:
    """A file's JSON object. Raises ValueError."""
    try:
        found = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no JSON object")
    return found


def _vocabulary_from(files: dict[str, bytes]) -> Vocabulary:
    data = _document(files, VOCABULARY)
    if data["kind"] == "char":
        return CharVocabulary(data["characters"])
    if data["kind"] == "byte":
        return ByteVocabulary()
    if data["kind"] == "sentencepiece":
        return SentencePieceVocabulary(files[PIECES])
    raise ValueError(f"{VOCABULARY} has the unknown kind {data['kind']!r}")


def _golden(model: LanguageModel) -> dict[str, list[Any]]:
    """A fixed walk through the vocabulary and its log-probs, after the end of text."""
    ids = _walk(model.config.vocab_size)
    return {"ids": ids, "logprobs": _logprobs(model, ids)}


def _walk(vocab_size: int) -> list[int]:
    step = 1 + vocab_size // 7
    return [1 + i * step % (vocab_size - 1) for i in range(_NUM_GOLDEN_TOKENS)]


def _recorded(checkpoint: Checkpoint) -> tuple[list[int], list[float]]:
    """The walk and its log-probs, as the report has them."""
    golden = checkpoint.report.get("golden")
    found: dict[str, Any] = golden if isinstance(golden, dict) else {}
    ids, logprobs = found.get("ids", []), found.get("logprobs", [])
    is_walk = (
        isinstance(ids, list)
        and isinstance(logprobs, list)
        and 0 < len(ids) == len(logprobs)
        and all(type(id) is int and 0 <= id < checkpoint.config.vocab_size for id in ids)
        and all(type(each) in (int, float) for each in logprobs)
    )
    if not is_walk:
        raise CheckpointCorrupt(
            f"The checkpoint's {REPORT} records no log-probs to verify it by. Use another copy."
        )
    return ids, logprobs


def _distance(computed: list[float], wanted: list[float]) -> float:
    """The largest difference; NaN if one of them is."""
    return float(np.abs(np.subtract(computed, wanted)).max())


def _logprobs(model: LanguageModel, ids: Sequence[int]) -> list[float]:
    inputs_1T = torch.tensor([[END_OF_TEXT_ID, *ids[:-1]]])
    logits_1TV, _ = model.advance(inputs_1T, model.initial_state(1))
    logprobs_TV = logits_1TV[0].double().log_softmax(-1)
    picked: list[float] = logprobs_TV.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    return picked


def _read_checked(directory: Path) -> tuple[dict[str, bytes], str]:
    directory = _present(directory)
    if not directory.is_dir():
        raise CheckpointNotFound(
            f"There is no directory {directory}. Give one that holds a checkpoint."
        )
    if not (directory / CONFIG).is_file():
        raise CheckpointNotFound(
            f"{directory} is no checkpoint: it has no {CONFIG}. `charlm train` makes one."
        )
    _check_format(directory)
    manifest = _read(directory, MANIFEST)
    try:
        digests: dict[str, str] = json.loads(manifest)["sha256"]
        missing = {WEIGHTS, CONFIG, VOCABULARY, REPORT} - set(digests)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointCorrupt(f"{directory / MANIFEST} is damaged. Use another copy.") from None
    if missing:
        raise CheckpointCorrupt(
            f"{directory / MANIFEST} does not list {', '.join(sorted(missing))}."
        )
    files = {}
    for name, expected in digests.items():
        files[name] = _read(directory, Path(name).name)
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise CheckpointCorrupt(
                f"{directory / name} is truncated or changed: its SHA-256 is not the manifest's. "
                "Use another copy of the checkpoint."
            )
    return files, hashlib.sha256(manifest).hexdigest()


def _check_format(directory: Path) -> None:
    try:
        found = json.loads(_read(directory, CONFIG))["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointCorrupt(
            f"{directory / CONFIG} is damaged: it states no format_version. Use another copy."
        ) from None
    if found != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{directory} has format_version {found}, but this charlm reads {FORMAT_VERSION}. "
            "Install a newer charlm, or train the model again."
        )


def _read(directory: Path, name: str) -> bytes:
    try:
        return read_bytes(directory / name, MAX_FILE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise CheckpointCorrupt(
            f"{directory / name} cannot be read ({_reason(error)}). Use another copy."
        ) from None


def _reason(error: OSError | ValueError) -> object:
    return error.strerror if isinstance(error, OSError) else error


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _swap_in(fresh: Path, directory: Path) -> None:
    """Put `fresh` in place of `directory`. Dying between the renames, it leaves what was there."""
    old = _old(directory)
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
    fresh.rename(directory)
    sync_directory(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _present(directory: Path) -> Path:
    """Where the checkpoint is, even if its writer is, or died, between two renames.

    A reader changes nothing: the writer may be at work.
    """
    old = _old(directory)
    return old if old.is_dir() and not directory.exists() else directory


def _old(directory: Path) -> Path:
    return directory.parent / f".{directory.name}.old"
