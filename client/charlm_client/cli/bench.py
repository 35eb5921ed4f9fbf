"""The command `charlm bench serve`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from charlm_client.bench.load_generator import LoadGenerator
from charlm_client.bench.plot import svg
from charlm_client.bench.results import LoadResults, Percentiles, load_results, rates
from charlm_client.bench.workload import Lengths, Workload
from charlm_client.cli.options import SERVER_DEFAULT, AsJson, Color, Model, Server
from charlm_client.cli.output_file import check_writable, written
from charlm_client.cli.rendering import console, print_json
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client
from charlm_client.errors import InvalidRequest

# Time that calls may take after the end of the test.
_PATIENCE_S = 60.0

_FLAGS = {
    "context": "--prompt-length",
    "stopping.max_new_tokens": "--output-length",
    "sampling.seed": "--seed",
}

app = typer.Typer(help="Load-test a running server.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Load-test a running server."""


@app.command()
def serve(
    model: Model = "",
    streams: Annotated[
        int, typer.Option(min=1, max=4096, help="Number of concurrent streams (closed loop).")
    ] = 64,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Start this many streams per second instead (open loop)."),
    ] = None,
    duration: Annotated[
        float,
        typer.Option(
            min=0.1, max=86_400, help="Length of the test in seconds, including --warm-up."
        ),
    ] = 10.0,
    warm_up: Annotated[
        float, typer.Option(min=0, help="Seconds at the start that are not measured.")
    ] = 1.0,
    prompt_length: Annotated[
        str, typer.Option(metavar="N|A-B", help="Prompt length in characters: a number or a range.")
    ] = "20",
    output_length: Annotated[
        str, typer.Option(metavar="N|A-B", help="Output length in tokens: a number or a range.")
    ] = "256",
    slow_readers: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Fraction of streams, from 0 to 1, that read only twice per second."
        ),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the lengths and the arrival times.")
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write a plot of characters per second over time to FILE.svg."),
    ] = None,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
) -> None:
    """Load-test a running server: throughput, latency percentiles and errors.

    [dim]charlm bench serve --streams 64 --duration 30
    charlm bench serve --rate 20 --prompt-length 100-1000 --slow-readers 0.1 --json[/dim]
    """
    if warm_up >= duration:
        raise InvalidRequest(
            f"--warm-up is {warm_up:g} s; it must be less than --duration, {duration:g} s."
        )
    if plot is not None:
        _check_plot(plot)
    workload = Workload(
        num_streams=streams,
        rate=rate,
        duration_s=duration,
        warm_up_s=warm_up,
        prompt_lengths=Lengths.parse(prompt_length, "--prompt-length"),
        output_lengths=Lengths.parse(output_length, "--output-length"),
        slow_share=slow_readers,
        seed=seed,
    )

    async def measure(client: Client) -> None:
        name = await chosen_model(client, model)
        records = await LoadGenerator(client, name, workload).run()
        results = load_results(records, workload)
        if plot is not None:
            drawn = svg(rates(records, duration), f"{name}, {server}")
            with written(plot) as out:
                out.write(drawn.encode())
        if as_json:
            print_json(results.as_dict())
        else:
            _print(results, console(color))

    run_call(server, duration + _PATIENCE_S, measure, flags=_FLAGS, may_retry=False)


def _check_plot(path: Path) -> None:
    """Raises BadParameter for a file name that does not end in .svg."""
    if str(path) != "-" and path.suffix.lower() != ".svg":
        raise typer.BadParameter(
            f"{path.name} would hold an SVG; end its name in .svg.", param_hint="--plot"
        )
    check_writable(path, force=True)


def _print(results: LoadResults, console: Console) -> None:
    table = Table("", "p50", "p95", "p99")
    table.add_row("first character", *_milliseconds(results.first_character_s))
    table.add_row("between chunks", *_milliseconds(results.between_chunks_s))
    console.print(
        f"{results.characters_per_s:,.0f} characters/s, {results.streams_per_s:,.1f} streams/s "
        f"ended, over {results.seconds:g} s; {results.num_streams:,} streams began."
    )
    console.print(table)
    for kind, num in results.errors.items():
        console.print(f"{num:,} streams failed: {kind}")


def _milliseconds(spread: Percentiles) -> list[str]:
    return [f"{1000 * value:.2f} ms" for value in (spread.p50, spread.p95, spread.p99)]
