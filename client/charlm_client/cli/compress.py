"""The command `charlm compress`."""

import sys

from charlm_client.api.compression import DEFAULT_CODEC_TIMEOUT_S
from charlm_client.cli.codec_files import Force, Source, Target, report, write
from charlm_client.cli.file_progress import progress_of_files, watched
from charlm_client.cli.input_file import opened
from charlm_client.cli.options import SERVER_DEFAULT, AsJson, Model, Server, Timeout
from charlm_client.cli.output_file import check_writable
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client
from charlm_client.errors import InvalidRequest

_FLAGS = {
    "data": "SOURCE",
}


def compress(
    source: Source,
    target: Target,
    model: Model = "",
    force: Force = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = DEFAULT_CODEC_TIMEOUT_S,
) -> None:
    """Compress a file without loss, using the model's probabilities.

    Any file can be compressed; bytes outside the model's vocabulary take more space.
    Keep the checkpoint: only the same model can decompress the file.

    [dim]charlm compress book.txt book.charlm
    cat *.txt | charlm compress - - > all.charlm[/dim]
    """
    if str(target) == "-" and sys.stdout.isatty():
        raise InvalidRequest("TARGET is a terminal; compressed bytes need a file or a pipe.")

    async def call(client: Client) -> None:
        name = await chosen_model(client, model)
        with opened(source) as file, progress_of_files() as progress:
            stream = client.compress(watched(file, source, progress), model=name, timeout_s=timeout)
            await write(stream, target)
        report(stream, target, as_json=as_json)

    check_writable(target, force=force)
    run_call(server, timeout, call, flags=_FLAGS, may_retry=False)
