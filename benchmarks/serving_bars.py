"""The bars that serving is held to on two cores, over the results of all benchmarks of serving."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

from bars import Bar, Results, table

RESULTS = Path(__file__).parent / "results"
PARTS = "serving", "latency", "scoring", "compression", "growth"
SMALL_GPT, GPT, PEER = "gpt 4x128, 4 heads", "gpt 6x384, 6 heads", "CTranslate2 float32"
RECURRENT = "gru 2x256", "gru 2x512", "lstm 2x256", "lstm 2x512"
MODELS = (SMALL_GPT, GPT, *RECURRENT)
STATE_LIMIT = 32 * 1024

Find = Callable[[Results], float]


def of_streams(case: str, num_streams: int, ratio: str) -> Find:
    """A median of serving.py's."""

    def find(results: Results) -> float:
        found: float = results["serving"]["cases"][case][str(num_streams)]["ratios"][ratio][
            "median"
        ]
        return found

    return find


def of_first_character(case: str, beside: str) -> Find:
    """p99 over three times that of an idle server and a step."""

    def find(results: Results) -> float:
        found = results["latency"]["cases"][case]
        return float(found[beside]["p99"] / (3 * found["idle"]["p99"] + found["step_s"]))

    return find


def of_pause(case: str) -> Find:
    return lambda results: float(results["latency"]["cases"][case]["pause_in_steps"]["p99"])


def growing(case: str) -> Find:
    """Seconds a character of the last tenth of a text over those of the first."""

    def find(results: Results) -> float:
        seconds = [each[1] for each in results["growth"]["context"][case]]
        tenth = len(seconds) // 10
        return mean(seconds[-tenth:]) / mean(seconds[:tenth])

    return find


def least(finds: list[Find]) -> Find:
    return lambda results: min(find(results) for find in finds)


def most(finds: list[Find]) -> Find:
    return lambda results: max(find(results) for find in finds)


OF_CALLS = "A call costs Python's gRPC 1.5 ms of the two cores, and 64 begin together"
BARS = [
    Bar(
        "GPT 4 x 128, 64 streams: gRPC over CTranslate2",
        2.0,
        of_streams(SMALL_GPT, 64, f"gRPC / {PEER}"),
        is_least=True,
        why_missed=f"{OF_CALLS}: a fifth of the time that 64 streams of 256 characters take.",
    ),
    Bar(
        "GPT 4 x 128, 1 stream: engine over CTranslate2",
        1.0,
        of_streams(SMALL_GPT, 1, f"engine / {PEER}"),
        is_least=True,
    ),
    Bar(
        "GPT 4 x 128, 1 stream: gRPC over CTranslate2",
        0.7,
        of_streams(SMALL_GPT, 1, f"gRPC / {PEER}"),
        is_least=True,
    ),
    Bar(
        "GPT 6 x 384, 64 streams: gRPC over CTranslate2",
        2.0,
        of_streams(GPT, 64, f"gRPC / {PEER}"),
        is_least=True,
        why_missed="Its products alone take 0.43 of the engine's time at the roofline, and 90 MB "
        "of keys and values 3 ms of a step of 11; the rest is the callers' and gRPC's.",
    ),
    Bar(
        "GPT 6 x 384, 1 stream: gRPC over CTranslate2",
        1.0,
        of_streams(GPT, 1, f"gRPC / {PEER}"),
        is_least=True,
    ),
    Bar(
        "GRU and LSTM, 64 streams: engine over roofline, least of four",
        0.6,
        least([of_streams(case, 64, "engine / roofline") for case in RECURRENT]),
        is_least=True,
    ),
    *(
        Bar(
            f"{case}, 64 streams of {length} characters: gRPC over engine",
            0.7,
            of_streams(case, 64, ratio),
            is_least=True,
            why_missed=f"{OF_CALLS}, while the engine makes all in {took}.",
        )
        for length, ratio, took in (
            (256, "gRPC / engine", "0.2 s"),
            (1000, "gRPC, 1,000 / engine, 1,000", "0.7 s"),
        )
        for case in RECURRENT
    ),
    Bar(
        "GRU and LSTM, 1 stream: engine over PyTorch eager, least of four",
        3.0,
        least([of_streams(case, 1, "engine / PyTorch eager") for case in RECURRENT]),
        is_least=True,
    ),
    Bar(
        "first character beside 63 long streams, p99 over its bound, most of six",
        1.0,
        most([of_first_character(case, "long") for case in MODELS]),
    ),
    *(
        Bar(
            f"{case}: the same beside short streams",
            1.0,
            of_first_character(case, "short"),
            why_missed="Calls that end together begin together, a herd of them 1.5 ms each.",
        )
        for case in MODELS
    ),
    *(
        Bar(
            f"{case}: pause that a long prompt makes, steps at p99",
            2.0,
            of_pause(case),
            why_missed="A piece that the system interrupts takes longer than it was cut to.",
        )
        for case in MODELS
    ),
    *(
        Bar(
            f"{case}: scoring one long text, over the products of forward",
            0.8,
            lambda results, case=case: results["scoring"][case]["in process, 1 text"]["of_default"],
            is_least=True,
            why_missed="A recurrent text is one row after the other: by torch, products of one "
            "row make a quarter of that; 32 texts together make more than all of it.",
        )
        for case in ("gru 2x256", "lstm 2x256", "transformer 4x128", "transformer 6x384")
    ),
    Bar(
        "decompression of an LSTM over eager PyTorch, one character at a time",
        5.0,
        lambda results: next(
            row["times_eager"]
            for row in results["compression"]["rows"]
            if row["name"] == "charlm, lstm"
        ),
        is_least=True,
    ),
    Bar(
        "seconds a character at the end of 1,000,000 over those at the beginning, most of two",
        1.2,
        most([growing(case) for case in ("gru 2x256", "lstm 2x256")]),
    ),
    Bar(
        "bytes of a recurrent stream's state, most of four",
        STATE_LIMIT,
        lambda results: max(results["growth"]["memory"][case]["state"] for case in RECURRENT),
    ),
    Bar("seconds to start", 3.0, lambda results: median(results["growth"]["start"]["serve"])),
]


def bars() -> list[str]:
    """A table of all of them, from whatever results there are."""
    files = {part: RESULTS / f"{part}.json" for part in PARTS}
    results = {part: json.loads(at.read_text()) for part, at in files.items() if at.exists()}
    return ["What is asked, of medians:", "", *table(BARS, results)]
