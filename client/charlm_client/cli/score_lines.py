"""`charlm score --lines`: score each line of a file as a separate text."""

import sys
from pathlib import Path

from charlm_client.cli.input_file import read, read_file
from charlm_client.cli.rendering import NATS_PER_BIT, figures, print_json
from charlm_client.cli.run_call import chosen_model
from charlm_client.cli.score_options import ScoreOptions
from charlm_client.client import Client
from charlm_client.types import Score

LINES_TOGETHER = 256  # in one call
ROW_HEADING = "text\tlogprob_nats\tbits_per_character"


async def score_lines(client: Client, path: Path, options: ScoreOptions) -> None:
    """Print a row for each line that is not blank, or its JSON; then the total.

    For a model of lines the end of each line is scored too, and counts as a character in the total,
    as line breaks do in the training report.
    """
    model = await client.get_model(await chosen_model(client, options.model))
    text = read("-") if str(path) == "-" else read_file(path)
    lines = [line for line in text.split("\n") if line]
    if not (options.as_json or options.total_only):
        print(ROW_HEADING)
    scores: list[Score] = []
    for first in range(0, len(lines), LINES_TOGETHER):
        together = lines[first : first + LINES_TOGETHER]
        answers = await client.score(
            together,
            model=model.name,
            context=options.context,
            end_of_text=model.unit == "line",
            replace_unknown=options.replace_unknown,
        )
        for line, score in zip(together, answers, strict=True):
            _print_line(line, score, options)
        scores += answers
    _print_total(scores, options, num_ends=len(lines) if model.unit == "line" else 0)


def _print_line(line: str, score: Score, options: ScoreOptions) -> None:
    if options.as_json:
        print_json({"text": line} | figures(score))
    elif not options.total_only:
        print(f"{line}\t{score.total_logprob:.6f}\t{score.bits_per_character:.4f}")


def _print_total(scores: list[Score], options: ScoreOptions, num_ends: int) -> None:
    nats = -sum(score.total_logprob for score in scores)
    num_characters = sum(score.num_characters for score in scores) + num_ends
    bits = nats / NATS_PER_BIT / max(num_characters, 1)
    print(
        f"{nats:.3f} nats over {len(scores)} lines of {num_characters} characters: "
        f"{bits:.4f} bits per character",
        file=sys.stdout if options.total_only else sys.stderr,
    )
