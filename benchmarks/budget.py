"""Whether `--budget` is kept: the wall clock of whole runs, as one who waits for them sees it.

    python benchmarks/budget.py names.txt:line tinyshakespeare.txt builtin:python-docs
    python benchmarks/budget.py names.txt:line --families lstm --budgets 10,30 --busy

From the moment that the run's log appears, which is before the corpus is read, to the end of the
process. `--busy` keeps one processor at work beside it. Rows that were measured before are kept.
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS = Path(__file__).parent / "results" / "budget.json"
FAMILIES = "rnn,gru,lstm,transformer"
ALLOWED = 0.05
Row = dict[str, Any]


def main(
    corpora: Annotated[list[str], typer.Argument(help="Files or builtins; :line for names.")],
    families: Annotated[str, typer.Option(help="Separated by commas.")] = FAMILIES,
    budgets: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "10,30,60",
    seed: Annotated[int, typer.Option(help="The runs' seed.")] = 0,
    busy: Annotated[bool, typer.Option(help="Beside a process that spins.")] = False,
) -> None:
    rows: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for corpus in corpora:
        for family in families.split(","):
            for budget_s in map(int, budgets.split(",")):
                with neighbor(busy):
                    row = measured(corpus, family, budget_s, seed)
                row["busy"] = busy
                print(shown(row), flush=True)
                rows = [each for each in rows if key(each) != key(row)] + [row]
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{sum(map(is_kept, rows))} of {len(rows)} runs within {ALLOWED:.0%} of their budget.")


def measured(corpus: str, family: str, budget_s: int, seed: int) -> Row:
    text = corpus.removesuffix(":line")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        options = ["--family", family, "--budget", f"{budget_s}s", "--seed", str(seed), "--json"]
        options += ["--unit", "line"] if text != corpus else []
        charlm = str(Path(sys.executable).with_name("charlm"))
        command = [charlm, "train", text, "--out", str(out), *options]
        log = out.with_name("model.run") / "log.jsonl"
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
            while not log.exists() and run.poll() is None:
                time.sleep(0.002)
            began = time.monotonic()
            assert run.stdout is not None
            report = json.loads(run.stdout.read())
            run.wait()
            wall_s = time.monotonic() - began
    return {
        "corpus": Path(text).name,
        "family": family,
        "budget_s": budget_s,
        "seed": seed,
        "wall_s": round(wall_s, 2),
        "said_s": report["training"]["elapsed_s"],
        "nats": report["validation"][0]["nats_per_token"],
        "steps": report["training"]["steps"],
    }


@contextmanager
def neighbor(is_wanted: bool) -> Iterator[None]:
    """A process that spins for as long."""
    if not is_wanted:
        yield
        return
    process = multiprocessing.Process(target=spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def spin() -> None:
    while True:
        pass


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("corpus", "family", "budget_s", "seed", "busy"))


def is_kept(row: Row) -> bool:
    return bool(abs(row["wall_s"] / row["budget_s"] - 1) <= ALLOWED)


def shown(row: Row) -> str:
    off = row["wall_s"] / row["budget_s"] - 1
    return (
        f"{row['corpus']:<20} {row['family']:<12} {row['budget_s']:>3} s: {row['wall_s']:6.2f} s "
        f"({off:+.1%}){'' if is_kept(row) else ' MISSED'}  said {row['said_s']:.2f} s, "
        f"{row['nats']:.3f} nats, {row['steps']:,} steps{', busy' if row['busy'] else ''}"
    )


if __name__ == "__main__":
    typer.run(main)
