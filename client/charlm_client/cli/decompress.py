"""The command `charlm decompress`."""

from typing import Annotated

import typer

from charlm_client.api.compression import DEFAULT_CODEC_TIMEOUT_S, CodecStream
from charlm_client.cli.codec_files import Force, Source, Target, report, write
from charlm_client.cli.file_progress import progress_of_files, watched
from charlm_client.cli.input_file import opened
from charlm_client.cli.options import SERVER_DEFAULT, AsJson, Model, Server, Timeout
from charlm_client.cli.output_file import check_writable
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client

EXIT_DAMAGED = 3  # something was written, but not all that was compressed

_FLAGS = {
    "data": "SOURCE",
}


def decompress(
    source: Source,
    target: Target,
    model: Model = "",
    skip_damaged_frames: Annotated[
        bool,
        typer.Option(
            "--skip-damaged-frames",
            help="Skip damaged frames, restore the others, and exit with code 3.",
        ),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = DEFAULT_CODEC_TIMEOUT_S,
) -> None:
    """Decompress a file that `charlm compress` wrote, with the same model.

    [dim]charlm decompress book.charlm restored.txt
    charlm decompress hurt.charlm - --skip-damaged-frames | less[/dim]
    """

    async def call(client: Client) -> CodecStream:
        name = await chosen_model(client, model)
        with opened(source) as file, progress_of_files() as progress:
            stream = client.decompress(
                watched(file, source, progress),
                model=name,
                skip_damaged_frames=skip_damaged_frames,
                timeout_s=timeout,
            )
            await write(stream, target)
        report(stream, target, as_json=as_json)
        return stream

    check_writable(target, force=force)
    if run_call(server, timeout, call, flags=_FLAGS, may_retry=False).damaged_frames:
        raise typer.Exit(EXIT_DAMAGED)
