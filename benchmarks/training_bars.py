"""The bars that training is held to, on tinyshakespeare and two cores, and what was found."""

import statistics
from collections.abc import Callable

from bars import Bar, Results, table

NGRAM_NATS, NGRAM_TOLERANCE = 1.5165, 0.005


def of_runs(part: str, family: str, key: str) -> Callable[[Results], float]:
    return lambda results: statistics.mean(run[key] for run in results[part][family])


def slowest_step(kind: str) -> Callable[[Results], float]:
    """Of the medians beside the plain step that runs eagerly, the least."""
    return lambda results: min(
        next(iter(case["ratios"].values()))["median"]
        for case in results["speed"]
        if case["case"].startswith(kind)
    )


BARS = [
    Bar("LSTM in the recipe's time, streamed", 1.45, of_runs("minutes", "lstm", "streamed")),
    Bar("the same in cold blocks of 256", 1.47, of_runs("minutes", "lstm", "cold")),
    Bar(
        "that LSTM mixed with an n-gram, streamed",
        1.42,
        lambda results: statistics.mean(run["streamed"] for run in results["mixture"]),
    ),
    Bar("Transformer in ten minutes, streamed", 1.40, of_runs("long", "transformer", "streamed")),
    Bar("Transformer in the recipe's time, cold", 1.55, of_runs("minutes", "transformer", "cold")),
    Bar(
        "n-gram, streamed",
        NGRAM_NATS + NGRAM_TOLERANCE,
        of_runs("minutes", "ngram", "streamed"),
    ),
    Bar("its seconds", 3.0, of_runs("minutes", "ngram", "seconds")),
    Bar("LSTM's step over nn.LSTM's, least", 1.3, slowest_step("lstm"), is_least=True),
    Bar("GRU's step over nn.GRU's, least", 1.3, slowest_step("gru"), is_least=True),
    Bar(
        "Transformer's step over a plain GPT's, least",
        1.5,
        slowest_step("transformer"),
        is_least=True,
        why_missed="Products run at the peak of bfloat16 and are a third to two thirds of a step, "
        "and of the rest no part is a tenth; see docs/log/training-speed.md, "
        '"Where does a deeper Transformer\'s step go?"',
    ),
]


def bars(results: Results) -> list[str]:
    return ["What is asked, of means over seeds:", "", *table(BARS, results)]
