"""The arguments that `charlm compress` and `charlm decompress` share, and what they write."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from charlm_client.api.compression import CodecStream, CodecTotals
from charlm_client.cli.output_file import written
from charlm_client.cli.rendering import print_json

Source = Annotated[Path, typer.Argument(help="File to read; - reads stdin.")]


Target = Annotated[Path, typer.Argument(help="File to write; - writes to stdout.")]


Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite an existing file.")]


_RATIOS = ("bits_per_byte", "model_bits_per_byte")


async def write(stream: CodecStream, target: Path) -> None:
    with written(target) as out:
        async for data in stream:
            out.write(data)


def report(stream: CodecStream, target: Path, *, as_json: bool) -> None:
    """Print the totals, to the standard error if the data is on the standard output."""
    assert stream.totals is not None  # set by the last message of a successful call
    to_stderr = str(target) == "-"
    if as_json:
        ratios = {name: getattr(stream.totals, name) for name in _RATIOS}
        ranges = [{"first": each.start, "count": len(each)} for each in stream.damaged_frames]
        about = {"damaged_frames": ranges}
        print_json(asdict(stream.totals) | ratios | about, to_stderr=to_stderr)
    else:
        print(totals_line(stream.totals), file=sys.stderr if to_stderr else sys.stdout)
    if stream.damaged_frames:
        numbers = ", ".join(
            f"{each[0]} to {each[-1]}" if len(each) > 1 else str(each[0])
            for each in stream.damaged_frames
        )
        print(f"charlm: damaged and left out: frame {numbers}", file=sys.stderr)


def totals_line(totals: CodecTotals) -> str:
    """Sizes, bits per byte, and the cross-entropy of the model."""
    sizes = f"{totals.num_text_bytes:,} bytes of text, {totals.num_compressed_bytes:,} compressed"
    if not totals.num_text_bytes:
        return sizes
    return (
        f"{sizes}: {totals.bits_per_byte:.4f} bits per byte, "
        f"the model's cross-entropy is {totals.model_bits_per_byte:.4f}"
    )
