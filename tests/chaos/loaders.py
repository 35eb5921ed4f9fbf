"""Everything that reads bytes from elsewhere, each with damaged ones to read.

Digests and checksums are made good again more often than not: what they would have found is then
for the reader itself to find.
"""

import hashlib
import json
import struct
from binascii import crc32, crc_hqx
from collections.abc import Callable
from pathlib import Path

import torch

from charlm_model import checkpoint as checkpoints
from charlm_model import snapshot as snapshots
from charlm_model.compression.frames import FRAME_HEAD_BYTES, Deframer, Frame
from charlm_model.errors import SnapshotError
from charlm_model.snapshot import Provenance, Snapshot
from charlm_server.calls.callers import callers_from
from charlm_server.config.settings import ServeConfig
from charlm_server.engine.generation import Origin
from charlm_server.engine.resume import ReceivedDigest, ResumePosition
from charlm_server.errors.base import CharlmError, ServeError
from charlm_server.models.loading import load_model
from charlm_training.errors import RunStateDamaged
from charlm_training.run.run_state_store import RunStateStore
from tests.chaos.damage import Damage
from tests.server.wire import checkpoint_of, vocabulary_of

Trial = Callable[[Damage], None]
Expected = tuple[type[Exception], ...]
CONFIG = ServeConfig(checkpoints={}, max_batch_size=2, threads=1)
PROVENANCE = Provenance("ab" * 32, "torch of today")
TOKENS = """
[[tokens]]
name = "alice"
sha256 = "{digest}"
roles = ["generate", "score"]
calls_per_minute = 60
max_concurrent = 4
"""


def checkpoint_trial(family: str, kind: str) -> Callable[[Path], Trial]:
    """Any file of a checkpoint, as `charlm serve` reads them."""

    def prepare(folder: Path) -> Trial:
        made = checkpoint_of(family, vocabulary_of(kind))
        directory = folder / "x"
        checkpoints.save(directory, made.model, made.vocabulary, {"training": {"step": 3}})
        whole = {path.name: path.read_bytes() for path in directory.iterdir()}

        def trial(damage: Damage) -> None:
            files = dict(whole)
            name = damage.random.choice(sorted(files))
            if name.endswith(".json"):
                files[name] = damage.json(files[name])
            elif name.endswith(".safetensors"):
                files[name] = damage.tensors(files[name])
            else:
                files[name] = damage.bytes(files[name])
            if name != checkpoints.MANIFEST and damage.random.random() < 0.9:
                digests = {
                    each: hashlib.sha256(data).hexdigest()
                    for each, data in files.items()
                    if each != checkpoints.MANIFEST
                }
                files[checkpoints.MANIFEST] = json.dumps({"sha256": digests}).encode()
            for each, data in files.items():
                (directory / each).write_bytes(data)
            loaded = load_model("models/x", directory, CONFIG)
            loaded.vocabulary.encode("the fox", unknown="replace")

        return trial

    return prepare


def snapshot_trial(family: str) -> Callable[[Path], Trial]:
    """An exported state."""

    def prepare(_folder: Path) -> Trial:
        model = checkpoint_of(family, vocabulary_of("char")).model
        logits_1TV, state = model.advance(torch.tensor([[0, 3, 4, 5]]), model.initial_state(1))
        whole = snapshots.encode(Snapshot(state, logits_1TV[:, -1].clone(), 3), PROVENANCE)

        def trial(damage: Damage) -> None:
            opened = snapshots.decode(damaged_snapshot(whole, damage), PROVENANCE, model)
            model.advance(torch.tensor([[1]]), opened.state.clone())

        return trial

    return prepare


def damaged_snapshot(whole: bytes, damage: Damage) -> bytes:
    """With a digest of its own bytes, mostly."""
    magic, version, size = struct.unpack("<4sHI", whole[:10])
    head, payload = whole[42 : 42 + size], whole[42 + size :]
    if damage.random.random() < 0.2:
        return damage.bytes(whole)
    if damage.random.random() < 0.4:
        head = damage.json(head)
    else:
        payload = damage.tensors(payload)
    start = struct.pack("<4sHI", magic, version, len(head))
    return start + hashlib.sha256(start + head + payload).digest() + head + payload


def resume_trial(_folder: Path) -> Trial:
    origin = Origin.of("ab", b"request", 7)
    position = ResumePosition(
        origin=origin,
        index=0,
        num_tokens=3,
        num_bytes=3,
        num_characters=3,
        has_ended=False,
        received=ReceivedDigest([1, 2, 3]).value,
    )
    whole = position.to_token()

    def trial(damage: Damage) -> None:
        ResumePosition.from_token(damaged_token(whole, damage)).resumption(origin, [1, 2, 3])

    return trial


def damaged_token(whole: bytes, damage: Damage) -> bytes:
    body = damage.bytes(whole[:-8])
    check = hashlib.sha256(body).digest()[:8] if damage.random.random() < 0.9 else whole[-8:]
    return body + check


def frames_trial(_folder: Path) -> Trial:
    whole = b"".join(
        Frame(number, 5, 1, bytes(8), is_last=number == 3).to_bytes() for number in range(4)
    )

    def trial(damage: Damage) -> None:
        data = damaged_frames(whole, damage)
        deframer = Deframer()
        num_found = 0
        while data:
            cut = damage.random.randrange(1, 200)
            num_found += sum(1 for _ in deframer.feed(data[:cut]))
            data = data[cut:]
        num_found += sum(1 for _ in deframer.finish())
        assert num_found < 1 << 18

    return trial


def damaged_frames(whole: bytes, damage: Damage) -> bytes:
    """The frames as they were or not, in any order, most with good checksums."""
    frames: list[bytes] = []
    while whole:
        num_words = struct.unpack_from("<BIHHIIH", whole)[3]
        size = FRAME_HEAD_BYTES + 4 * num_words
        frames.append(whole[:size])
        whole = whole[size:]
    chosen = [damage.random.choice(frames) for _ in frames]
    return b"".join(
        _checked_again(damage.bytes(frame)) if damage.random.random() < 0.5 else frame
        for frame in (chosen if damage.random.random() < 0.5 else frames)
    )


def _checked_again(frame: bytes) -> bytes:
    if len(frame) < FRAME_HEAD_BYTES:
        return frame
    covered = frame[:13]
    payload = frame[FRAME_HEAD_BYTES:]
    covered += struct.pack("<I", crc32(payload, crc32(covered)))
    return covered + struct.pack("<H", crc_hqx(covered, 0)) + payload


def tokens_trial(folder: Path) -> Trial:
    """The file of `charlm serve --tokens`."""
    whole = TOKENS.format(digest="0123abcd" * 8).encode()
    path = folder / "tokens.toml"
    values = ("[]", "5", "-1", "2.5", '""', "[[1]]", "{a=1}", "1979-05-27", "true", '"\\ud800"')

    def trial(damage: Damage) -> None:
        lines = whole.splitlines()
        if damage.random.random() < 0.5:
            at = damage.random.randrange(2, len(lines))
            key = lines[at].split(b"=")[0]
            lines[at] = key + b"= " + damage.random.choice(values).encode()
            path.write_bytes(b"\n".join(lines))
        else:
            path.write_bytes(damage.bytes(whole))
        for caller in callers_from(path):
            assert sorted([caller.name, "a", *caller.roles])

    return trial


def training_state_trial(folder: Path) -> Trial:
    """What a killed trainer left."""
    store = RunStateStore(folder / "state")
    nested = {"b": [torch.ones(2), (1, 2)], "c": {1: None, "d": 0.5}}
    store.save({"owner": {"seed": 1}, "run": nested})
    last = folder / "state" / "last"
    whole = {path.name: path.read_bytes() for path in last.iterdir()}

    def trial(damage: Damage) -> None:
        files = dict(whole)
        name = damage.random.choice(sorted(files))
        change = damage.tensors if name.endswith(".safetensors") else damage.json
        files[name] = change(files[name])
        if name != "manifest.json":
            digests = {
                each: hashlib.sha256(data).hexdigest()
                for each, data in files.items()
                if each != "manifest.json"
            }
            files["manifest.json"] = json.dumps({"sha256": digests}).encode()
        for each, data in files.items():
            (last / each).write_bytes(data)
        store.load()

    return trial


LOADERS: dict[str, tuple[Expected, Callable[[Path], Trial]]] = {
    "checkpoint-gru": ((ServeError,), checkpoint_trial("gru", "char")),
    "checkpoint-transformer": ((ServeError,), checkpoint_trial("transformer", "byte")),
    "checkpoint-ngram": ((ServeError,), checkpoint_trial("ngram", "char")),
    "checkpoint-pieces": ((ServeError,), checkpoint_trial("rnn", "pieces")),
    "snapshot-lstm": ((SnapshotError,), snapshot_trial("lstm")),
    "snapshot-transformer": ((SnapshotError,), snapshot_trial("transformer")),
    "snapshot-ngram": ((SnapshotError,), snapshot_trial("ngram")),
    "resume": ((CharlmError,), resume_trial),
    "frames": ((), frames_trial),
    "tokens": ((ServeError,), tokens_trial),
    "training-state": ((RunStateDamaged,), training_state_trial),
}
