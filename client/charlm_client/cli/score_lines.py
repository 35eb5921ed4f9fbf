"""What `charlm score --lines` does: every line of a file is a text of its own."""

import sys
from dataclasses import dataclass
from pathlib import Path

from charlm_client.cli.commands import chosen_model, print_json
from charlm_client.cli.rendering import NATS_PER_BIT, figures
from charlm_client.cli.session import read, read_file
from charlm_client.client import Client
from charlm_client.types import Score

LINES_TOGETHER = 256  # in one call
ROW_HEADING = "text\tlogprob_nats\tbits_per_character"


@dataclass(frozen=True, kw_only=True, slots=True)
class LinesQuestion:
    """A file whose lines to score, "-" being the standard input, and what to print."""

    path: Path
    model: str
    context: str
    replace_unknown: bool
    total_only: bool
    as_json: bool


async def score_lines(client: Client, question: LinesQuestion) -> None:
    """Print a row for each line that is not blank, or its JSON; then the total.

    A model of lines is also asked for their ends. In the total these are characters, as line breaks
    are in its training report.
    """
    model = await client.get_model(await chosen_model(client, question.model))
    text = read("-") if str(question.path) == "-" else read_file(question.path)
    lines = [line for line in text.split("\n") if line]
    if not (question.as_json or question.total_only):
        print(ROW_HEADING)
    scores: list[Score] = []
    for first in range(0, len(lines), LINES_TOGETHER):
        together = lines[first : first + LINES_TOGETHER]
        answers = await client.score(
            together,
            model=model.name,
            context=question.context,
            end_of_text=model.unit == "line",
            replace_unknown=question.replace_unknown,
        )
        for line, score in zip(together, answers, strict=True):
            _print_line(line, score, question)
        scores += answers
    _print_total(scores, question, num_ends=len(lines) if model.unit == "line" else 0)


def _print_line(line: str, score: Score, question: LinesQuestion) -> None:
    if question.as_json:
        print_json({"text": line} | figures(score))
    elif not question.total_only:
        print(f"{line}\t{score.total_logprob:.6f}\t{score.bits_per_character:.4f}")


def _print_total(scores: list[Score], question: LinesQuestion, num_ends: int) -> None:
    nats = -sum(score.total_logprob for score in scores)
    num_characters = sum(score.num_characters for score in scores) + num_ends
    bits = nats / NATS_PER_BIT / max(num_characters, 1)
    print(
        f"{nats:.3f} nats over {len(scores)} lines of {num_characters} characters: "
        f"{bits:.4f} bits per character",
        file=sys.stdout if question.total_only else sys.stderr,
    )
