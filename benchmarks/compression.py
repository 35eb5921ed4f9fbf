"""Bits per byte and speed of compression through the service, beside general compressors.

    python benchmarks/compression.py tinyshakespeare.txt MODEL [MODEL ...]

Only the last 10 % of the text are compressed: what `charlm train` keeps for validation. The server
is a process of its own; client and server share the processor. zstandard and pyppmd are measured
where they are installed. The last column is the speed of decompression beside PyTorch's own modules
of the same shape, one character at a time.
"""

import bz2
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from charlm_client import SyncClient
from charlm_model import checkpoint
from charlm_model.config import ModelConfig

RESULTS = Path(__file__).parent / "results"
HELD_OUT = 0.1
EAGER_STEPS = 2_000
STOP_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One compressor on the held-out text; speeds in MB of text a second."""

    name: str
    bits_per_byte: float
    compress_mb_s: float
    decompress_mb_s: float
    model_bits_per_byte: float | None = None  # the model's own cross-entropy
    times_eager: float | None = None


def main(
    corpus: Path,
    models: list[Path],
    threads: Annotated[int, typer.Option(help="Of the server.")] = 2,
) -> None:
    data = corpus.read_bytes()
    held_out = data[len(data) - int(len(data) * HELD_OUT) :]
    rows = [*general(held_out)]
    with serving(models, threads) as address, SyncClient(address, timeout_s=600) as client:
        rows += [by_model(client, model, held_out) for model in models]
    RESULTS.mkdir(exist_ok=True)
    found = {"bytes": len(held_out), "threads": threads, "rows": [asdict(row) for row in rows]}
    (RESULTS / "compression.json").write_text(json.dumps(found, indent=1) + "\n")
    page = "\n".join(table(rows, len(held_out), threads))
    (RESULTS / "compression.md").write_text(page + "\n")
    print(page)


def general(text: bytes) -> Iterator[Row]:
    """Compressors that know nothing of the text beforehand."""
    yield row_of("xz -9", text, lambda data: lzma.compress(data, preset=9), lzma.decompress)
    yield row_of("bzip2 -9", text, lambda data: bz2.compress(data, 9), bz2.decompress)
    with suppress(ImportError):
        import zstandard

        packer, unpacker = zstandard.ZstdCompressor(level=19), zstandard.ZstdDecompressor()
        yield row_of("zstd -19", text, packer.compress, unpacker.decompress)
    with suppress(ImportError):
        import pyppmd

        yield row_of(
            "PPMd, order 6",
            text,
            lambda data: pyppmd.compress(data, max_order=6, mem_size=16 << 20),
            lambda data: pyppmd.decompress_str(data, max_order=6, mem_size=16 << 20).encode(),
        )


def by_model(client: SyncClient, directory: Path, text: bytes) -> Row:
    """Through the service, to bytes and back."""
    name = directory.name
    client.compress(text[:2000], model=name).read()
    stream = client.compress(text, model=name)
    started = time.perf_counter()
    packed = stream.read()
    compressed_at = time.perf_counter()
    assert client.decompress(packed, model=name).read() == text
    restored_at = time.perf_counter()
    assert stream.totals is not None
    speed = len(text) / 1e6 / (restored_at - compressed_at)
    eager = eager_mb_s(checkpoint.load(directory).model.config)
    return Row(
        name=f"charlm, {name}",
        bits_per_byte=8 * len(packed) / len(text),
        compress_mb_s=len(text) / 1e6 / (compressed_at - started),
        decompress_mb_s=speed,
        model_bits_per_byte=stream.totals.model_bits_per_byte,
        times_eager=speed / eager if eager else None,
    )


def row_of(
    name: str, text: bytes, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]
) -> Row:
    started = time.perf_counter()
    packed = pack(text)
    packed_at = time.perf_counter()
    assert unpack(packed) == text
    unpacked_at = time.perf_counter()
    return Row(
        name=name,
        bits_per_byte=8 * len(packed) / len(text),
        compress_mb_s=len(text) / 1e6 / (packed_at - started),
        decompress_mb_s=len(text) / 1e6 / (unpacked_at - packed_at),
    )


@torch.inference_mode()
def eager_mb_s(config: ModelConfig) -> float | None:
    """Of torch's own module, one character after the other; None where torch has none."""
    modules = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    if config.family not in modules:
        return None
    embedding = nn.Embedding(config.vocab_size, config.embedding_size)
    module = modules[config.family](config.embedding_size, config.hidden_size, config.num_layers)
    head = nn.Linear(config.hidden_size, config.vocab_size)
    state, token = None, torch.zeros(1, 1, dtype=torch.long)
    started = time.perf_counter()
    for _ in range(EAGER_STEPS):
        hidden, state = module(embedding(token), state)
        head(hidden).softmax(-1).cumsum(-1).numpy()
    return EAGER_STEPS / 1e6 / (time.perf_counter() - started)


@contextmanager
def serving(models: list[Path], threads: int) -> Iterator[str]:
    command = [sys.executable, "-m", "charlm_client", "serve", *map(str, models), "--port", "0"]
    environment = {**os.environ, "CHARLM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip().rsplit(" ", 1)[-1]
        server.terminate()
        server.wait(STOP_S)


def table(rows: list[Row], num_bytes: int, threads: int) -> Iterator[str]:
    yield "# Compression: figures of `benchmarks/compression.py`\n"
    yield f"{num_bytes:,} bytes that no model was trained on; {threads} threads.\n"
    yield "| | bits per byte | over the model's own | compress MB/s | restore MB/s | times eager |"
    yield "|---|---|---|---|---|---|"
    for row in sorted(rows, key=lambda each: each.bits_per_byte):
        over = times = ""
        if row.model_bits_per_byte is not None:
            over = f"{row.bits_per_byte / row.model_bits_per_byte - 1:.2%}"
        if row.times_eager is not None:
            times = f"{row.times_eager:.1f}"
        yield (
            f"| {row.name} | {row.bits_per_byte:.4f} | {over} | {row.compress_mb_s:.3f} "
            f"| {row.decompress_mb_s:.3f} | {times} |"
        )


if __name__ == "__main__":
    typer.run(main)
