"""The command `charlm generate`."""

import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console
from rich.text import Text

from charlm_client.cli.input_file import read
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Color,
    Model,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import (
    console,
    print_json,
    printable,
)
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client
from charlm_client.types import (
    Chunk,
    Constraint,
    ConstraintMode,
    Sampling,
    Stopping,
    StreamHeader,
)

DEFAULT_MODE = "local_mask"
_SAMPLING, _STOPPING = "Sampling", "Stopping"
_LANGUAGE = "Constraints on the output"

_FLAGS = {
    "context": "PROMPT",
    "sampling.temperature": "--temperature",
    "sampling.top_k": "--top-k",
    "sampling.top_p": "--top-p",
    "sampling.min_p": "--min-p",
    "sampling.typical_p": "--typical-p",
    "sampling.repetition_penalty": "--repetition-penalty",
    "sampling.presence_penalty": "--presence-penalty",
    "sampling.frequency_penalty": "--frequency-penalty",
    "sampling.penalty_window": "--penalty-window",
    "sampling.seed": "--seed",
    "sampling.biases": "--bias",
    "stopping.max_new_tokens": "--max-tokens",
    "stopping.stop_sequences": "--stop",
    "stopping.include_stop_sequence": "--include-stop",
    "stopping.ignore_end_of_text": "--ignore-end-of-text",
    "stopping.max_time": "--max-time",
    "constraint.regex": "--regex",
    "constraint.choices": "--choice",
    "constraint.allowed_characters": "--allowed",
    "constraint": "--constraint-mode",
    "num_outputs": "--num-outputs",
}


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads stdin.")] = "",
    model: Model = "",
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Largest number of tokens to sample.", rich_help_panel=_STOPPING),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="Stop sequence: text that ends the output; repeatable.", rich_help_panel=_STOPPING
        ),
    ] = None,
    include_stop: Annotated[
        bool,
        typer.Option(
            "--include-stop",
            help="Keep the matched stop sequence in the output.",
            rich_help_panel=_STOPPING,
        ),
    ] = False,
    ignore_end_of_text: Annotated[
        bool,
        typer.Option(
            "--ignore-end-of-text",
            help="Continue after the end-of-text token.",
            rich_help_panel=_STOPPING,
        ),
    ] = False,
    max_time: Annotated[
        float | None,
        typer.Option(help="Time limit for sampling, in seconds.", rich_help_panel=_STOPPING),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            "-t",
            help="Divides the logits; from 0 (always the most probable token) to 100.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Sample only from the k most probable tokens.", rich_help_panel=_SAMPLING
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Nucleus sampling: smallest set of tokens with total probability p.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Drop tokens less probable than this fraction of the most probable one.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    typical_p: Annotated[
        float | None,
        typer.Option(
            help="Typical sampling: tokens of typical surprisal with total probability p.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            help="Above 1 makes tokens that already occurred less probable.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option(
            help="Subtracted (nats) from tokens that already occurred.", rich_help_panel=_SAMPLING
        ),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option(
            help="Subtracted (nats) from a token for each time it occurred.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    penalty_window: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of latest tokens that the penalties count.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    bias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=NATS",
            help="Added (nats) to the log-probability of one token id; repeatable.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of the sampler: the same seed gives the same text.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(
            help="Regular expression that the whole output must match.", rich_help_panel=_LANGUAGE
        ),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that the whole output may equal; repeatable.", rich_help_panel=_LANGUAGE
        ),
    ] = None,
    allowed: Annotated[
        str | None,
        typer.Option(help="Characters that the output may contain.", rich_help_panel=_LANGUAGE),
    ] = None,
    constraint_mode: Annotated[
        str,
        typer.Option(
            help="local_mask masks impossible tokens at each step; rejection and smc sample from "
            "the model's distribution given the constraint.",
            rich_help_panel=_LANGUAGE,
        ),
    ] = DEFAULT_MODE,
    num_outputs: Annotated[
        int, typer.Option("--num-outputs", "-n", min=1, help="Number of outputs for the prompt.")
    ] = 1,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Continue a text; characters are printed as they are sampled.

    A flag that is not given has the model's default.

    [dim]charlm generate "To be" -t 0.7 --seed 1
    printf "To be" | charlm generate - --max-tokens 1000 > out.txt
    charlm generate "ROMEO:" --stop $'\\n\\n' -n 3 --json
    charlm generate "It was in " --regex '1[89][0-9]{2}'[/dim]
    """
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        penalty_window=penalty_window,
        logit_bias=dict(map(_bias_from, bias or ())),
        seed=seed,
        constraint=_constraint_from(regex, choice, allowed, constraint_mode),
    )
    stopping = Stopping(
        max_new_tokens=max_tokens,
        stop_sequences=tuple(stop or ()),
        include_stop_sequence=include_stop or None,
        ignore_end_of_text=ignore_end_of_text or None,
        max_time_s=max_time,
    )
    given, out = read(prompt), console(color)

    async def call(client: Client) -> None:
        stream = client.stream_generate(
            given,
            model=await chosen_model(client, model),
            sampling=sampling,
            stopping=stopping,
            num_outputs=num_outputs,
            replace_unknown=replace_unknown,
        )
        async with stream:
            if as_json:
                async for chunk in stream:
                    print_json(_chunk_json(chunk, stream.header))
            elif num_outputs > 1:
                await _print_outputs(stream.__aiter__(), num_outputs)
            else:
                await _print_as_it_comes(stream.__aiter__(), given, out)

    run_call(server, timeout, call, flags=_FLAGS)


def _constraint_from(
    regex: str | None, choices: list[str] | None, allowed: str | None, mode: str
) -> Constraint | None:
    known = get_args(ConstraintMode)
    if mode not in known:
        raise typer.BadParameter(
            f"{mode!r} is not one of {', '.join(known)}.", param_hint="--constraint-mode"
        )
    if regex is None and not choices and allowed is None:
        if mode != DEFAULT_MODE:
            raise typer.BadParameter(
                f"{mode!r} needs a constraint: give --regex, --choice or --allowed.",
                param_hint="--constraint-mode",
            )
        return None
    return Constraint(
        regex=regex,
        choices=tuple(choices or ()),
        allowed_characters=allowed,
        mode=cast(ConstraintMode, mode),
    )


def _bias_from(text: str) -> tuple[int, float]:
    token_id, _, nats = text.partition("=")
    try:
        return int(token_id), float(nats)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} must be a token id, = and nats, for instance 7=-2.5.", param_hint="--bias"
        ) from None


async def _print_as_it_comes(chunks: AsyncIterator[Chunk], prompt: str, console: Console) -> None:
    is_terminal = console.is_terminal
    is_within_line = False
    try:
        async for chunk in chunks:
            if is_terminal and not is_within_line:
                console.print(Text(printable(prompt), style="bold"), end="")
            sys.stdout.write(printable(chunk.text) if is_terminal else chunk.text)
            sys.stdout.flush()
            is_within_line = True
    finally:
        if is_within_line:  # an error's sentence would stand behind the text
            print(flush=True)


async def _print_outputs(chunks: AsyncIterator[Chunk], num_outputs: int) -> None:
    texts = [""] * num_outputs
    async for chunk in chunks:
        texts[chunk.index] += chunk.text
        if chunk.end is not None:
            print(f"[{chunk.index}] {printable(texts[chunk.index])}", flush=True)


def _chunk_json(chunk: Chunk, header: StreamHeader | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "index": chunk.index,
        "text": chunk.text,
        "first_position": chunk.first_position,
        "token_ids": chunk.token_ids,
        "logprobs": chunk.logprobs,
    }
    if chunk.first_position == 0 and header is not None:
        value |= {"model": header.model, "digest": header.model_digest, "seed": header.seed}
    if chunk.constraint_log_masses:
        value["constraint_log_masses"] = chunk.constraint_log_masses
    if chunk.end is not None:
        value["finish_reason"] = chunk.end.finish_reason.value
        value["matched_stop_sequence"] = chunk.end.matched_stop_sequence
        value["total_logprob"] = chunk.end.total_logprob
        if chunk.end.log_evidence is not None:
            value["log_evidence"] = chunk.end.log_evidence
            value["effective_sample_size"] = chunk.end.effective_sample_size
    return value
