"""The results of `training.py` for people: a page of tables and a plot."""

import statistics
from pathlib import Path
from typing import Any

from training_bars import bars

from charlm_training.report.drawing import svg
from charlm_training.report.plot import Curve, Plot

Results = dict[str, Any]
PUBLISHED_NATS = 1.4697  # nanoGPT on a GPU in three minutes, from its README


def write_page(results: Results, path: Path) -> None:
    parts = [heading(results), *bars(results), *figures(results), *speed(results)]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def heading(results: Results) -> str:
    machine = results["machine"]
    return (
        "# Training: figures of `benchmarks/training.py`\n\n"
        f"{machine['cores']} cores, {machine['architecture']} {machine['capability']}, torch "
        f"{machine['torch']}. Nats a character over the whole validation text; mean ± standard "
        "deviation over the seeds; seconds are those of the whole command.\n"
    )


def figures(results: Results) -> list[str]:
    lines = [
        "| what | runs | seconds | cold blocks of 256 | streamed |",
        "|---|---|---|---|---|",
    ]
    if "recipe" in results:
        found = results["recipe"]
        nats = f"{found['cold_blocks_of_64']:.4f} (blocks of 64)"
        lines.append(f"| nanoGPT's recipe | 1 | {found['seconds']:.1f} | {nats} | |")
    lines += [row(family, runs) for family, runs in results.get("minutes", {}).items()]
    if "mixture" in results:
        lines.append(row("lstm mixed with an n-gram", results["mixture"]))
    lines += [row(name, runs) for name, runs in long_runs(results).items()]
    if "pair" in results:
        lines.append(row("two lstms mixed, ten minutes in all", results["pair"]))
    lines += [row(name, runs) for name, runs in results.get("gpu", {}).items()]
    return [*lines, "", "![nats against seconds](training.svg)", ""]


def long_runs(results: Results) -> dict[str, list[Results]]:
    return {f"{family}, ten minutes": runs for family, runs in results.get("long", {}).items()}


def row(name: str, runs: list[Results]) -> str:
    columns = [spread([run[key] for run in runs]) for key in ("cold", "streamed")]
    seconds = statistics.mean(run["seconds"] for run in runs)
    return f"| {name} | {len(runs)} | {seconds:.1f} | {columns[0]} | {columns[1]} |"


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def speed(results: Results) -> list[str]:
    if "speed" not in results:
        return []
    lines = [
        "A training step beside plain PyTorch's, median (least to most) of rounds that take turns:",
        "",
        "| step | characters/s | times as fast as | GFLOP/s | of float32 peak | of bfloat16 |",
        "|---|---|---|---|---|---|",
    ]
    for case in results["speed"]:
        ratios = "; ".join(
            f"{name}: **{each['median']:.2f}** ({each['min']:.2f} to {each['max']:.2f})"
            for name, each in case["ratios"].items()
        )
        lines.append(
            f"| {case['case']} | {case['characters_per_s']['charlm']:,} | {ratios} "
            f"| {case['gflops']:.0f} | {case['share_of_float32_peak']:.0%} "
            f"| {case['share_of_bfloat16_peak']:.0%} |"
        )
    return [*lines, ""]


def write_plot(results: Results, path: Path) -> None:
    """Nats on the first part of the validation text against seconds, for every run."""
    named = {**results.get("minutes", {}), **long_runs(results)}
    curves = [
        Curve(name=name, x=[at for at, _ in run["curve"]], y=[nats for _, nats in run["curve"]])
        for name, runs in named.items()
        for run in runs
        if run["curve"]
    ]
    levels = [("nanoGPT on a GPU, published", PUBLISHED_NATS)]
    if "ngram" in named:
        levels.append(("n-gram", named["ngram"][0]["cold"]))
    if curves:
        plot = Plot(
            title="Validation against time, 2 cores",
            x_label="seconds",
            y_label="nats per character, cold blocks",
            curves=curves,
            levels=levels,
            is_log_x=True,
        )
        path.write_text(svg(plot), encoding="utf-8")
