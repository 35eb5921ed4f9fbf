"""Output for terminals: escaped text, colors by surprisal, bars and tables."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charlm_client.types import Model, NextDistribution, Score, TopToken

NATS_PER_BIT = math.log(2)
_BAR_WIDTH = 30
# Upper edges in bits; what lies above the last has the last style.
_SURPRISAL_STYLES = [
    (1, "dim"),
    (2, "green"),
    (4, "yellow"),
    (6, "magenta"),
    (math.inf, "bold red"),
]
# Joiners combine emoji and letters and do not move the cursor.
_HARMLESS = "\n\t\u200c\u200d"
_PICTURES = {"\n": "↵\n", "\t": "→\t", "\r": "␍", "\x7f": "␡"}
COLORS: dict[str, bool | None] = {"auto": None, "always": True, "never": False}
"""Whether to color, by the word for it; None leaves it to the terminal."""


def console(color: str, *, is_error: bool = False) -> Console:
    """A console; `color` is a key of COLORS."""
    return Console(
        force_terminal=COLORS[color],
        no_color=COLORS[color] is False,
        stderr=is_error,
        highlight=False,
        soft_wrap=True,
    )


def printable(text: str) -> str:
    """Text without control characters, except line ends and tabs."""
    return "".join(
        character if character in _HARMLESS else visible(character) for character in text
    )


def visible(character: str) -> str:
    """A control character as a picture or an escape."""
    if character in _PICTURES:
        return _PICTURES[character]
    if ord(character) < 32:
        return chr(0x2400 + ord(character))
    is_safe = character.isprintable() or character in _HARMLESS
    return character if is_safe else f"\\u{{{ord(character):x}}}"


def surprisal_style(bits: float) -> str:
    return next(style for edge, style in _SURPRISAL_STYLES if bits < edge)


def colored(text: str, offsets: Sequence[int], logprobs: Sequence[float]) -> Text:
    """The text, each token in the color of its surprisal.

    Tokens that share a character, as the bytes of one do, are shown together.
    """
    rendered = Text()
    ends = [*offsets[1:], len(text)]
    nats = 0.0
    for start, end, logprob in zip(offsets, ends, logprobs, strict=True):
        nats -= logprob
        if end > start:
            piece = "".join(map(visible, text[start:end]))
            rendered.append(piece, style=surprisal_style(nats / NATS_PER_BIT))
            nats = 0.0
    return rendered


def legend() -> Text:
    """The legend of the colors."""
    rendered = Text("surprisal in bits: ", style="dim")
    previous = 0.0
    for edge, style in _SURPRISAL_STYLES:
        label = f"over {previous:g}" if math.isinf(edge) else f"{previous:g} to {edge:g}"
        rendered.append(f" {label} ", style=style)
        previous = edge
    return rendered


ROW_HEADING = "offset\ttoken\tlogprob_nats\tsurprisal_bits\trank"


def token_row(offset: int, text: str, logprob: float, rank: int) -> str:
    """One token for a program to read."""
    surprisal = -logprob / NATS_PER_BIT
    return f"{offset}\t{json.dumps(text)}\t{logprob:.6f}\t{surprisal:.4f}\t{rank}"


def figures(score: Score) -> dict[str, Any]:
    """The non-empty fields of a score, for JSON."""
    return {name: each for name, each in asdict(score).items() if each != ()}


def totals(score: Score) -> str:
    """A score in one line, in all three units."""
    return (
        f"{abs(score.total_logprob):.3f} nats over {score.num_characters} characters: "
        f"{score.bits_per_character:.4f} bits per character, "
        f"{score.bits_per_byte:.4f} bits per byte"
    )


def bars(distribution: NextDistribution) -> Table:
    """The most probable next tokens, longest bar first."""
    table = plain_table()
    best = math.exp(distribution.top[0].logprob) if distribution.top else 1.0
    for token in distribution.top:
        p = math.exp(token.logprob)
        length = max(1, round(_BAR_WIDTH * p / best))
        style = surprisal_style(-token.logprob / NATS_PER_BIT)
        table.add_row(Text(token_label(token)), f"{p:7.2%}", Text("█" * length, style=style))
    return table


def token_label(token: TopToken) -> str:
    """The text of a token between quotes, or a description if it has none."""
    if not token.data:
        return "end of text"
    try:
        text = token.data.decode()
    except UnicodeDecodeError:
        return f"bytes {token.data.hex(' ')}"
    return "'" + "".join(map(visible, text)).strip("\n") + "'"


def model_table(models: Sequence[Model]) -> Table:
    """One row for each model."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("MODEL", "FAMILY", "PARAMETERS", "VOCABULARY", "BITS/CHARACTER", "BITS/BYTE"):
        table.add_column(heading, justify="left" if heading in ("MODEL", "FAMILY") else "right")
    for model in models:
        table.add_row(*model_row(model))
    return table


def model_row(model: Model, *, separator: str = ",") -> tuple[str, ...]:
    """The columns of `model_table`; the figures are of the first protocol of the report."""
    first = model.evaluations[0] if model.evaluations else None
    return (
        model.name,
        model.family,
        f"{model.num_parameters:,}".replace(",", separator),
        f"{model.vocabulary_kind} {model.vocab_size}",
        f"{first.bits_per_character:.4f}" if first else "-",
        f"{first.bits_per_byte:.4f}" if first else "-",
    )


def print_json(value: dict[str, Any], *, to_stderr: bool = False) -> None:
    """One object on one line."""
    out = sys.stderr if to_stderr else sys.stdout
    print(json.dumps(value, ensure_ascii=False), flush=True, file=out)


def json_string(text: str) -> str:
    """A text as a JSON string, for a program to read."""
    return json.dumps(text, ensure_ascii=False)


def token_string(data: bytes) -> str:
    """A token as a JSON string, or a description where it is no text by itself."""
    try:
        return json.dumps(data.decode()) if data else "end of text"
    except UnicodeDecodeError:
        return f"bytes {data.hex(' ')}"


def quoted(text: str) -> Text:
    """A text on one line of a terminal, between quotes."""
    return Text("'" + "".join(map(visible, text)).replace("\n", "") + "'")


def plain_table() -> Table:
    return Table(box=None, show_header=False, padding=(0, 1))
