"""What each command does once its flags are read."""

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from charlm_client.cli.rendering import (
    NATS_PER_BIT,
    ROW_HEADING,
    bars,
    colored,
    legend,
    model_row,
    model_table,
    printable,
    token_row,
    totals,
)
from charlm_client.client import Client
from charlm_client.types import (
    Chunk,
    NextDistribution,
    Sampling,
    Score,
    Stopping,
    StreamHeader,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What to generate."""

    prompt: str
    model: str
    sampling: Sampling
    stopping: Stopping
    num_outputs: int
    replace_unknown: bool


async def generate(client: Client, wish: Wish, *, as_json: bool, console: Console) -> None:
    """Print characters as they arrive; several outputs one after the other, as they end."""
    stream = client.stream_generate(
        wish.prompt,
        model=await chosen_model(client, wish.model),
        sampling=wish.sampling,
        stopping=wish.stopping,
        num_outputs=wish.num_outputs,
        replace_unknown=wish.replace_unknown,
    )
    async with stream:
        if as_json:
            async for chunk in stream:
                print_json(_chunk_json(chunk, stream.header))
        elif wish.num_outputs > 1:
            await _print_outputs(stream.__aiter__(), wish.num_outputs)
        else:
            await _print_as_it_comes(stream.__aiter__(), wish.prompt, console)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A text to look at: what `score` scores, what `next` continues."""

    text: str
    model: str
    context: str = ""
    top_k: int = 0
    total_only: bool = False
    replace_unknown: bool


async def score(client: Client, question: Question, *, as_json: bool, console: Console) -> None:
    """Print a text colored by surprisal; a row for each token where no one is watching."""
    text, model = question.text, await chosen_model(client, question.model)
    (result,) = await client.score(
        [text],
        model=model,
        context=question.context,
        details=True,
        replace_unknown=question.replace_unknown,
    )
    if as_json:
        print_json(asdict(result) | {"text": text, "model": model})
    elif question.total_only:
        print(totals(result))
    elif console.is_terminal:
        console.print(colored(text, result.character_offsets, result.logprobs))
        console.print(legend())
        console.print(totals(result), style="dim")
    else:
        _print_rows(text, result)


def _print_rows(text: str, result: Score) -> None:
    print(ROW_HEADING)
    ends = [*result.character_offsets[1:], len(text)]
    columns = zip(result.character_offsets, ends, result.logprobs, result.ranks, strict=True)
    for start, end, logprob, rank in columns:
        print(token_row(start, text[start:end], logprob, rank))
    print(totals(result), file=sys.stderr)


async def next_token(
    client: Client, question: Question, *, as_json: bool, console: Console
) -> None:
    """Print the most probable next tokens."""
    model = await chosen_model(client, question.model)
    distribution = await client.next_distribution(
        question.text,
        model=model,
        top_k=question.top_k,
        replace_unknown=question.replace_unknown,
    )
    if as_json:
        print_json(_distribution_json(distribution) | {"model": model})
    elif console.is_terminal:
        console.print(bars(distribution))
        console.print(f"entropy {distribution.entropy / NATS_PER_BIT:.3f} bits", style="dim")
    else:
        print("token_id\ttext\tlogprob_nats")
        for token in distribution.top:
            print(f"{token.token_id}\t{json.dumps(token.text)}\t{token.logprob:.6f}")


def _distribution_json(distribution: NextDistribution) -> dict[str, Any]:
    """Bytes as hexadecimal digits: JSON has no bytes."""
    top = [asdict(token) | {"data": token.data.hex()} for token in distribution.top]
    return asdict(distribution) | {"top": top}


async def models(client: Client, *, as_json: bool, console: Console) -> None:
    """Print the loaded models."""
    loaded = await client.list_models()
    if as_json:
        for model in loaded:
            print_json(asdict(model))
    elif console.is_terminal:
        console.print(model_table(loaded))
    else:
        for model in loaded:
            print("\t".join(model_row(model, separator="")))


async def health(client: Client, service: str, *, as_json: bool) -> bool:
    """Print and return whether the server is serving."""
    is_serving = await client.check_health(service)
    status = "SERVING" if is_serving else "NOT_SERVING"
    if as_json:
        print_json({"service": service, "status": status})
    else:
        print(status)
    return is_serving


async def chosen_model(client: Client, model: str) -> str:
    """The model that was named, or the only one."""
    return model or await client.only_model()


def print_json(value: dict[str, Any], *, to_stderr: bool = False) -> None:
    """One object on one line."""
    out = sys.stderr if to_stderr else sys.stdout
    print(json.dumps(value, ensure_ascii=False), flush=True, file=out)
