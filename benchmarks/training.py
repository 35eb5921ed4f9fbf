"""How good a model gets in how much time, against a known recipe, and how fast a step is.

    python benchmarks/training.py tinyshakespeare.txt            # everything, about two hours
    python benchmarks/training.py tinyshakespeare.txt --only recipe,minutes --seeds 1

The first 90 % of the text train, the last 10 % are measured, all of it. Parts: `recipe` (nanoGPT's
for a processor, whose seconds become the budget), `minutes` (every family in those seconds),
`mixture` (an LSTM mixed with an n-gram, weight and order fitted on a slice of the training text),
`long` (an LSTM and a Transformer in ten minutes), `pair` (two LSTMs in ten minutes, mixed),
`speed` (a step beside plain PyTorch's), `gpu` (where there is one: how good an LSTM and a
Transformer get in budgets from seconds to three minutes). Results of parts that ran earlier are
kept.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import mixture_fit
import plain_gpt
import torch
import training_speed
import typer
from training_bars import bars
from training_page import write_page, write_plot

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("lstm", "gru", "rnn", "transformer", "ngram")
PARTS = ("recipe", "minutes", "mixture", "long", "pair", "speed", "gpu")
DEFAULT_SECONDS = 96.0
LONG_SECONDS = 600.0
LONG_FAMILIES = ("lstm", "transformer")
GPU_SECONDS = (5.0, 10.0, 20.0, 30.0, 180.0)
# Of the training text, kept back to fit how much the n-gram counts.
SLICE_SHARE = 0.03
Results = dict[str, Any]


def main(
    corpus: Annotated[Path, typer.Argument(help="One text file.")],
    only: Annotated[str, typer.Option(help="Parts, separated by commas.")] = ",".join(PARTS),
    seeds: Annotated[int, typer.Option(help="Runs of each row.")] = 3,
    families: Annotated[str, typer.Option(help="For `minutes` and `long`.")] = ",".join(FAMILIES),
) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "training.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = machine()
    text = corpus.read_text(encoding="utf-8")
    for part in only.split(","):
        print(f"=== {part}", flush=True)
        seconds = results.get("recipe", {}).get("seconds", DEFAULT_SECONDS)
        measure = Measure(corpus, text, seconds, seeds, families.split(","))
        if part not in PARTS:
            raise typer.BadParameter(f"{part} is no part; parts are {', '.join(PARTS)}.")
        found = getattr(measure, part)()
        is_by_row = isinstance(found, dict)
        results[part] = {**results.get(part, {}), **found} if is_by_row else found
        path.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(bars(results)))
    write_page(results, RESULTS / "training.md")
    write_plot(results, RESULTS / "training.svg")


def machine() -> Results:
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


@dataclass(frozen=True, slots=True)
class Measure:
    """A method a part."""

    corpus: Path
    text: str
    seconds: float
    seeds: int
    families: list[str]

    def recipe(self) -> Results:
        """The comparison, on the same machine in the same hour."""
        cut = int(len(self.text) * 0.9)
        ids = {character: number for number, character in enumerate(sorted(set(self.text)))}
        text_N = torch.tensor([ids[character] for character in self.text])
        found = plain_gpt.run_recipe(text_N[:cut], text_N[cut:], len(ids), seed=0)
        return {"seconds": found.seconds, "cold_blocks_of_64": found.nats_in_blocks}

    def minutes(self) -> Results:
        """Counting draws nothing by chance."""
        return {
            family: runs(self.corpus, family, self.seconds, self.seeds if family != "ngram" else 1)
            for family in self.families
        }

    def mixture(self) -> list[Results]:
        return [mixed(self.text, self.seconds, seed) for seed in range(self.seeds)]

    def long(self) -> Results:
        families = sorted(set(LONG_FAMILIES) & set(self.families))
        return {family: runs(self.corpus, family, LONG_SECONDS, self.seeds) for family in families}

    def pair(self) -> list[Results]:
        return [pair(self.corpus, self.text, seed) for seed in range(self.seeds)]

    def speed(self) -> list[Results]:
        return training_speed.run()

    def gpu(self) -> Results:
        """By family and budget; nothing where there is no GPU."""
        if not torch.cuda.is_available():
            print("There is no GPU here.")
            return {}
        return {
            f"{family}, {seconds:g} s on a {torch.cuda.get_device_name()}": runs(
                self.corpus, family, seconds, self.seeds, "--device", "cuda"
            )
            for family in LONG_FAMILIES
            for seconds in GPU_SECONDS
        }


def runs(corpus: Path, family: str, seconds: float, seeds: int, *flags: str) -> list[Results]:
    return [run(corpus, family, seconds, seed, *flags) for seed in range(seeds)]


def run(corpus: Path, family: str, seconds: float, seed: int, *flags: str) -> Results:
    """One `charlm train`: its figures, its seconds and its curve."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "model"
        train(corpus, out, family, seconds, seed, *flags)
        report = json.loads((out / "report.json").read_text())
        found = {
            "seed": seed,
            "seconds": report["training"]["elapsed_s"],
            "num_parameters": report["model"]["num_parameters"],
            "hidden_size": report["model"]["hidden_size"],
            "characters_seen": report["training"].get("tokens", 0),
            "curve": curve(Path(f"{out}.run") / "log.jsonl"),
            **figures(report["validation"]),
        }
    print(family, {name: value for name, value in found.items() if name != "curve"}, flush=True)
    return found


def train(corpus: Path, out: Path, family: str, seconds: float, seed: int, *flags: str) -> None:
    charlm = Path(sys.executable).with_name("charlm")
    command = [str(charlm), "train", str(corpus), "--out", str(out)]
    command += ["--family", family, "--seed", str(seed), *flags]
    if family != "ngram":
        command += ["--budget", f"{seconds:.1f}s"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def figures(validation: list[Results]) -> dict[str, float]:
    cold, streamed = validation
    return {"cold": cold["nats_per_token"], "streamed": streamed["nats_per_token"]}


def curve(log: Path) -> list[tuple[float, float]]:
    """(seconds, nats) of every look at the validation text on the way."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    looks = [event for event in events if event["event"] == "evaluated"]
    return [(look["elapsed_s"], look["nats_per_token"]) for look in looks]


def mixed(text: str, seconds: float, seed: int) -> Results:
    """Everything that is fitted sees the first 90 % only; the clock covers all of it.

    The slice is what comes last, so the beginning goes there: what is right before the held text,
    with the names of the same play, is worth 0.04 nats to the model (docs/log/training-budgets.md).
    """
    train_text, held_text = text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :]
    begins_at = round(len(train_text) * SLICE_SHARE)
    train_text = train_text[begins_at:] + train_text[:begins_at]
    with tempfile.TemporaryDirectory() as directory:
        corpus, out = Path(directory) / "train.txt", Path(directory) / "model"
        corpus.write_text(train_text, encoding="utf-8")
        train(
            corpus, out, "lstm", seconds - mixture_fit.RESERVED_S, seed,
            "--validation-fraction", str(SLICE_SHARE),
        )  # fmt: skip
        found = mixture_fit.fitted(out, train_text, held_text, SLICE_SHARE)
    report = {"seed": seed, **found}
    print("mixture", report, flush=True)
    return report


def pair(corpus: Path, text: str, seed: int) -> Results:
    """Two networks that differ in their seeds, each trained for half the time, weighed equally."""
    seconds = (LONG_SECONDS - mixture_fit.RESERVED_S) / 2
    with tempfile.TemporaryDirectory() as directory:
        outs = [Path(directory) / name for name in ("first", "second")]
        for number, out in enumerate(outs):
            train(corpus, out, "lstm", seconds, 2 * seed + number)
        found = mixture_fit.averaged(outs, text[int(len(text) * 0.9) :])
    report = {"seed": seed, **found}
    print("pair", report, flush=True)
    return report


if __name__ == "__main__":
    typer.run(main)
