"""A damaged checkpoint is refused, and saving never loses the existing one."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from charlm_model import checkpoint as checkpoints
from charlm_model.checkpoint import load, save, verify_golden, verify_on_device
from charlm_model.errors import (
    CheckpointCorrupt,
    CheckpointNotFound,
    GoldenMismatch,
    UnsupportedFormat,
)
from charlm_model.families.registry import FAMILIES
from charlm_model.language_model import LanguageModel
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary

MakeModel = Callable[..., LanguageModel]
VOCABULARY = CharVocabulary("abcdefghij")


@pytest.fixture
def saved(tmp_path: Path, make_model: MakeModel) -> Path:
    path = tmp_path / "my model"
    save(path, make_model("gru"), VOCABULARY, {"note": "first"})
    return path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_has_the_same_bits(
    family: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(family)
    ids_BT = torch.tensor([[1, 2, 3, 4]])

    save(tmp_path / "x", model, VOCABULARY, {"note": "kept"})
    loaded = load(tmp_path / "x")

    verify_golden(loaded)
    before, _ = model.advance(ids_BT, model.initial_state(1))
    after, _ = loaded.model.advance(ids_BT, loaded.model.initial_state(1))
    assert torch.equal(before, after)
    assert loaded.config == model.config
    assert loaded.report["note"] == "kept"
    assert len(loaded.digest) == 64


@pytest.mark.parametrize("kind", ["char", "byte", "sentencepiece"])
def test_every_vocabulary_comes_back(kind: str, make_model: MakeModel, tmp_path: Path) -> None:
    pieces = SentencePieceVocabulary.train(["the cat and the dog. " * 50], 300)
    vocabularies: dict[str, Vocabulary] = {
        "char": VOCABULARY,
        "byte": ByteVocabulary(),
        "sentencepiece": pieces,
    }
    vocabulary = vocabularies[kind]
    model = make_model("rnn", vocab_size=vocabulary.size)

    save(tmp_path / "x", model, vocabulary, {})

    assert load(tmp_path / "x").vocabulary.encode("cabbage") == vocabulary.encode("cabbage")


def test_equal_contents_have_equal_digests(saved: Path, make_model: MakeModel) -> None:
    other, third = saved.with_name("other"), saved.with_name("third")
    save(other, make_model("gru"), VOCABULARY, {"note": "first"})
    save(third, make_model("gru"), VOCABULARY, {"note": "second"})

    assert load(other).digest == load(saved).digest
    assert load(third).digest != load(saved).digest


def test_saving_leaves_training_mode_as_it_was(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model("gru").train()

    save(tmp_path / "x", model, VOCABULARY, {})

    assert model.training


def test_others_may_read_the_folder(saved: Path) -> None:
    """A server may run as another user with a read-only mount."""
    assert saved.stat().st_mode & 0o005 == 0o005
    assert all(file.stat().st_mode & 0o004 for file in saved.iterdir())


def test_nothing_else_is_left_behind(saved: Path, make_model: MakeModel) -> None:
    save(saved, make_model("gru"), VOCABULARY, {"note": "second"})

    assert [path.name for path in saved.parent.iterdir()] == ["my model"]
    assert load(saved).report["note"] == "second"


def test_no_directory_and_no_checkpoint_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no directory"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointNotFound, match=r"no config\.json"):
        load(tmp_path)


def test_a_newer_format_is_refused_with_both_numbers(saved: Path) -> None:
    edit(saved / "config.json", format_version=7)

    with pytest.raises(UnsupportedFormat, match=r"format_version 7.*reads 1"):
        load(saved)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "vocabulary.json", "report.json", "config.json"]
)
def test_damage_is_detected_and_named(saved: Path, name: str) -> None:
    """Every file, truncated by a byte or with one bit flipped, at several places."""
    path = saved / name
    whole = path.read_bytes()
    flips = [
        whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        for at in {0, len(whole) // 3, len(whole) - 2}
    ]
    for damaged in [whole[:-1], b"", whole + b" ", *flips]:
        path.write_bytes(damaged)
        with pytest.raises((CheckpointCorrupt, UnsupportedFormat), match=name):
            load(saved)


def test_a_damaged_manifest_is_found(saved: Path) -> None:
    for damaged in (b"", b"[]", b'{"sha256": {}}', b"[" * 100_000):
        (saved / "manifest.json").write_bytes(damaged)
        with pytest.raises(CheckpointCorrupt, match=r"manifest\.json"):
            load(saved)


def test_too_deeply_nested_json_is_corrupt(saved: Path) -> None:
    (saved / "config.json").write_bytes(b'{"a":' * 100_000)

    with pytest.raises(CheckpointCorrupt, match=r"config\.json is damaged"):
        load(saved)


def test_a_manifest_with_an_impossible_file_name_is_refused(saved: Path) -> None:
    digests = json.loads((saved / "manifest.json").read_text())["sha256"]
    (saved / "manifest.json").write_text(json.dumps({"sha256": {**digests, "a\0b": "0"}}))

    with pytest.raises(CheckpointCorrupt, match="null byte"):
        load(saved)


def test_a_missing_file_is_named(saved: Path) -> None:
    (saved / "vocabulary.json").unlink()

    with pytest.raises(CheckpointCorrupt, match=r"vocabulary\.json cannot be read"):
        load(saved)


def test_a_manifest_cannot_name_files_outside_its_directory(saved: Path) -> None:
    secret = saved.parent / "secret.json"
    secret.write_text("{}")
    digests = json.loads((saved / "manifest.json").read_text())["sha256"]
    (saved / "manifest.json").write_text(json.dumps({"sha256": {**digests, "../secret.json": "0"}}))

    with pytest.raises(CheckpointCorrupt, match=r"secret\.json cannot be read"):
        load(saved)


def forge(path: Path, name: str, data: bytes) -> None:
    """Change a file and update the manifest."""
    (path / name).write_bytes(data)
    digests = json.loads((path / "manifest.json").read_text())["sha256"]
    digests[name] = hashlib.sha256(data).hexdigest()
    (path / "manifest.json").write_text(json.dumps({"sha256": digests}))


@pytest.mark.parametrize(
    ("name", "document", "complaint"),
    [
        ("vocabulary.json", 5, r"vocabulary\.json is not a JSON object"),
        ("vocabulary.json", {"kind": "char", "characters": 5}, "distinct characters"),
        ("vocabulary.json", {"kind": "char", "characters": ["", "ab"]}, "distinct characters"),
        ("vocabulary.json", {"kind": "char", "characters": "abcdefghi\ud800"}, "distinct"),
        ("vocabulary.json", {"kind": "char", "characters": "abc"}, "has 4 tokens.*size is 11"),
        ("report.json", [], r"report\.json is not a JSON object"),
        ("report.json", {}, "no log-probs to verify"),
        ("report.json", {"golden": 1.5}, "no log-probs to verify"),
        ("report.json", {"golden": {"ids": [1, 99], "logprobs": [-1, -1]}}, "no log-probs"),
        ("report.json", {"golden": {"ids": [1, 2], "logprobs": [-1]}}, "no log-probs to verify"),
        ("report.json", {"golden": {"ids": [1], "logprobs": ["x"]}}, "no log-probs to verify"),
    ],
)
def test_files_are_checked_even_with_a_right_digest(
    saved: Path, name: str, document: object, complaint: str
) -> None:
    forge(saved, name, json.dumps(document).encode())

    with pytest.raises(CheckpointCorrupt, match=complaint):
        verify_golden(load(saved))


def test_json_too_deep_to_read_is_refused(saved: Path) -> None:
    forge(saved, "report.json", b"[" * 100_000)

    with pytest.raises(CheckpointCorrupt, match=r"report\.json is not JSON"):
        load(saved)


def test_from_tensors_checks_shapes_before_it_allocates(saved: Path) -> None:
    """64 layers of 8,192 would be 200 GB; orthogonal, they would take hours too."""
    config = json.loads((saved / "config.json").read_text())
    forge(
        saved, "config.json", json.dumps({**config, "hidden_size": 8192, "num_layers": 64}).encode()
    )

    with pytest.raises(CheckpointCorrupt, match=r"has the shape .*; it must have"):
        load(saved)


@pytest.mark.slow
def test_reading_does_not_load_the_compiler_of_torch(saved: Path) -> None:
    """That would take seconds at the start of every command."""
    program = (
        "import sys; from pathlib import Path; from charlm_model.checkpoint import load; "
        "load(Path(sys.argv[1])); print('torch._dynamo' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


@pytest.mark.parametrize("field", ["keys_2", "starts_2", "tokens_2", "shares_2", "backoff_2"])
@pytest.mark.parametrize("value", [-3, 2**40])
def test_inconsistent_tables_are_refused(
    tmp_path: Path, make_model: MakeModel, field: str, value: int
) -> None:
    path = tmp_path / "x"
    save(path, make_model("ngram"), VOCABULARY, {})
    tensors = safetensors.torch.load((path / "model.safetensors").read_bytes())
    tensors[field][2] = value
    if field.startswith("keys"):
        tensors[field] = tensors[field].flip(0)
    forge(path, "model.safetensors", safetensors.torch.save(tensors))

    with pytest.raises(CheckpointCorrupt, match="contexts are inconsistent"):
        load(path)


def test_other_log_probs_are_refused(saved: Path) -> None:
    loaded = load(saved)
    loaded.report["golden"]["logprobs"][3] += 0.01

    with pytest.raises(GoldenMismatch, match=r"0\.01 nats"):
        verify_golden(loaded)


@pytest.mark.parametrize("change", [1.0, float("nan")])
def test_a_device_must_agree_with_the_cpu(make_model: MakeModel, change: float) -> None:
    here, there, other = (make_model("gru") for _ in range(3))
    with torch.no_grad():
        other.head.bias[3] += change

    verify_on_device(there, here)
    with pytest.raises(GoldenMismatch, match="computed on cpu differ by up to"):
        verify_on_device(other, here)


def test_a_reader_does_not_interfere_with_a_save(
    saved: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, read = Path.rename, []

    def reading_after(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        read.append(load(saved).report["note"])
        return moved

    monkeypatch.setattr(Path, "rename", reading_after)
    save(saved, make_model("gru"), VOCABULARY, {"note": "second"})

    assert read == ["first", "second"]
    assert load(saved).report["note"] == "second"


class _Crash(BaseException):
    """A simulated crash."""


@pytest.mark.parametrize("deaths", range(12))
def test_a_crash_during_a_save_loses_nothing(
    deaths: int, saved: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash in any system call the old or the new checkpoint is intact."""
    calls = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > deaths:
                raise _Crash
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(checkpoints.shutil, "rmtree", dying(checkpoints.shutil.rmtree))
        try:
            save(saved, make_model("gru"), VOCABULARY, {"note": "second"})
        except _Crash:
            assert calls > deaths

    assert load(saved).report["note"] in ("first", "second")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "manifest.json"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(saved: Path, name: str) -> None:
    (saved / name).unlink()
    os.mkfifo(saved / name)

    with pytest.raises((CheckpointCorrupt, CheckpointNotFound), match=name):
        load(saved)


def test_a_file_of_an_absurd_size_is_refused_before_it_is_read(saved: Path) -> None:
    os.truncate(saved / "model.safetensors", 1 << 40)

    with pytest.raises(CheckpointCorrupt, match="more than 8,589,934,592"):
        load(saved)
