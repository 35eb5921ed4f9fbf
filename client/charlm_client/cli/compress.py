"""The commands `charlm compress` and `charlm decompress`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from charlm_client.api.compression import DEFAULT_CODEC_TIMEOUT_S, CodecStream, CodecTotals
from charlm_client.cli.commands import chosen_model, print_json
from charlm_client.cli.file_progress import progress_of_files, watched
from charlm_client.cli.options import SERVER_DEFAULT, AsJson, Model, Server, Timeout
from charlm_client.cli.output_file import check_writable, written
from charlm_client.cli.session import ask, opened
from charlm_client.client import Client
from charlm_client.errors import InvalidRequest

EXIT_DAMAGED = 3  # something was written, but not all that was compressed

Source = Annotated[Path, typer.Argument(help="File to read; - reads stdin.")]
Target = Annotated[Path, typer.Argument(help="File to write; - writes to stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that exists.")]


def compress(
    source: Source,
    target: Target,
    model: Model = "",
    force: Force = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = DEFAULT_CODEC_TIMEOUT_S,
) -> None:
    """Compress a file without loss, with the model's own probabilities.

    Any bytes survive; those that the model cannot express cost more. Keep the
    model: only the same checkpoint restores the file.

    [dim]charlm compress book.txt book.charlm
    cat *.txt | charlm compress - - > all.charlm[/dim]
    """
    if str(target) == "-" and sys.stdout.isatty():
        raise InvalidRequest("The compressed form is not for a terminal; name a file to write.")

    async def asking(client: Client) -> None:
        name = await chosen_model(client, model)
        with opened(source) as file, progress_of_files() as progress:
            stream = client.compress(watched(file, source, progress), model=name, timeout_s=timeout)
            await _write(stream, target)
        _report(stream, target, as_json=as_json)

    check_writable(target, force=force)
    ask(server, timeout, asking, may_repeat=False)


def decompress(
    source: Source,
    target: Target,
    model: Model = "",
    skip_damaged_frames: Annotated[
        bool,
        typer.Option("--skip-damaged-frames", help="Restore the other frames, and exit with 3."),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = DEFAULT_CODEC_TIMEOUT_S,
) -> None:
    """Restore what `charlm compress` made, with the same model.

    [dim]charlm decompress book.charlm restored.txt
    charlm decompress hurt.charlm - --skip-damaged-frames | less[/dim]
    """

    async def asking(client: Client) -> CodecStream:
        name = await chosen_model(client, model)
        with opened(source) as file, progress_of_files() as progress:
            stream = client.decompress(
                watched(file, source, progress),
                model=name,
                skip_damaged_frames=skip_damaged_frames,
                timeout_s=timeout,
            )
            await _write(stream, target)
        _report(stream, target, as_json=as_json)
        return stream

    check_writable(target, force=force)
    if ask(server, timeout, asking, may_repeat=False).damaged_frames:
        raise typer.Exit(EXIT_DAMAGED)


async def _write(stream: CodecStream, target: Path) -> None:
    with written(target) as out:
        async for data in stream:
            out.write(data)


def _report(stream: CodecStream, target: Path, *, as_json: bool) -> None:
    """The totals, beside the data where that takes the standard output; damage is always told."""
    assert stream.totals is not None  # the last message of a call that went well
    to_stderr = str(target) == "-"
    if as_json:
        ratios = {name: getattr(stream.totals, name) for name in _RATIOS}
        about = {"damaged_frames": stream.damaged_frames}
        print_json(asdict(stream.totals) | ratios | about, to_stderr=to_stderr)
    else:
        print(totals_line(stream.totals), file=sys.stderr if to_stderr else sys.stdout)
    if stream.damaged_frames:
        numbers = ", ".join(map(str, stream.damaged_frames))
        print(f"charlm: damaged and left out: frame {numbers}", file=sys.stderr)


_RATIOS = ("bits_per_byte", "model_bits_per_byte")


def totals_line(totals: CodecTotals) -> str:
    """Sizes, bits per byte, and what the model's cross-entropy alone would have taken."""
    sizes = f"{totals.num_text_bytes:,} bytes of text, {totals.num_compressed_bytes:,} compressed"
    if not totals.num_text_bytes:
        return sizes
    return (
        f"{sizes}: {totals.bits_per_byte:.4f} bits per byte, "
        f"the model's cross-entropy is {totals.model_bits_per_byte:.4f}"
    )
