"""Saves and loads checkpoints: directories with a model's files and their digests.

Nothing is unpickled. `manifest.json` holds the SHA-256 of every other file.
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
# Sums in another order sometimes round a bfloat16 state to the other neighbor. Measured on golden
# log-probs: 4e-4 nats for a trained Transformer, 5e-6 for an LSTM, whose state is float32.
DEVICE_TOLERANCE_NATS = 0.02
_NUM_GOLDEN_TOKENS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A loaded model with its vocabulary and report."""

    model: LanguageModel
    vocabulary: Vocabulary
    report: dict[str, Any]
    digest: str
    """SHA-256 of the manifest, in hexadecimal: identifies these exact files."""

    @property
    def config(self) -> ModelConfig:
        return self.model.config


def save(
    directory: Path, model: LanguageModel, vocabulary: Vocabulary, report: dict[str, Any]
) -> None:
    """Write a checkpoint so that at every moment the directory holds the old one or the new one."""
    was_training = model.training
    model.eval()
    report = {**report, "golden": _golden_record(model)}
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
    """Raises GoldenMismatch unless this machine computes the recorded log-probs.

    Raises CheckpointCorrupt if none are recorded, or invalid ones.
    """
    ids, recorded = _read_golden_record(checkpoint)
    worst = _distance(_golden_logprobs(checkpoint.model, ids), recorded)
    if not worst <= GOLDEN_TOLERANCE_NATS:
        raise GoldenMismatch(
            f"The checkpoint's recorded log-probs differ by up to {worst:.2g} nats from those "
            f"computed here (allowed: {GOLDEN_TOLERANCE_NATS}). Train it again with this version."
        )


def verify_on_device(model: LanguageModel, here: LanguageModel) -> None:
    """Raises GoldenMismatch unless a model on a device agrees with the same model on the CPU."""
    ids = _golden_ids(model.config.vocab_size)
    worst = _distance(_golden_logprobs(model, ids), _golden_logprobs(here, ids))
    if not worst <= DEVICE_TOLERANCE_NATS:
        raise GoldenMismatch(
            f"Log-probs computed on {model.device} differ by up to {worst:.2g} nats from those of "
            f"the CPU (allowed: {DEVICE_TOLERANCE_NATS}). Serve the model on the CPU."
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
        raise ValueError(f"{name} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object")
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


def _golden_record(model: LanguageModel) -> dict[str, list[Any]]:
    """A fixed sequence of ids and its log-probs, after the end of text."""
    ids = _golden_ids(model.config.vocab_size)
    return {"ids": ids, "logprobs": _golden_logprobs(model, ids)}


def _golden_ids(vocab_size: int) -> list[int]:
    step = 1 + vocab_size // 7
    return [1 + i * step % (vocab_size - 1) for i in range(_NUM_GOLDEN_TOKENS)]


def _read_golden_record(checkpoint: Checkpoint) -> tuple[list[int], list[float]]:
    """The golden ids and their log-probs from the report."""
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
    """The largest absolute difference; NaN if any number is NaN."""
    return float(np.abs(np.subtract(computed, wanted)).max())


def _golden_logprobs(model: LanguageModel, ids: Sequence[int]) -> list[float]:
    inputs_1T = torch.tensor([[END_OF_TEXT_ID, *ids[:-1]]])
    logits_1TV, _ = model.advance(inputs_1T, model.initial_state(1))
    logprobs_TV = logits_1TV[0].double().log_softmax(-1)
    picked: list[float] = logprobs_TV.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    return picked


def _read_checked(directory: Path) -> tuple[dict[str, bytes], str]:
    directory = _readable(directory)
    if not directory.is_dir():
        raise CheckpointNotFound(
            f"There is no directory {directory}. Give one that holds a checkpoint."
        )
    if not (directory / CONFIG).is_file():
        raise CheckpointNotFound(
            f"{directory} is not a checkpoint: it has no {CONFIG}. `charlm train` makes one."
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
            f"{directory / CONFIG} is damaged: it has no format_version. Use another copy."
        ) from None
    if found != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{directory} has format_version {found}, but this charlm reads {FORMAT_VERSION}. "
            "Install a newer charlm, or train the model again."
        )


def _read(directory: Path, name: str) -> bytes:
    try:
        return read_bytes(directory / name, MAX_FILE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
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
    """Replace `directory` by `fresh`. A crash between the renames leaves the old one."""
    old = _old(directory)
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
    fresh.rename(directory)
    sync_directory(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _readable(directory: Path) -> Path:
    """Where the checkpoint is, even between the two renames of `_swap_in`.

    A reader repairs nothing, because the writer may still be running.
    """
    old = _old(directory)
    return old if old.is_dir() and not directory.exists() else directory


def _old(directory: Path) -> Path:
    return directory.parent / f".{directory.name}.old"
