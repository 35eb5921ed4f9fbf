"""The results of `growth.py` as a page and plots."""

from pathlib import Path
from statistics import median
from typing import Any

from charlm_training.report.drawing import save_png
from charlm_training.report.plot import Curve, Plot

Results = dict[str, Any]
KIB = 1024


def write_page(results: Results, path: Path) -> None:
    machine = results["machine"]
    parts = [
        "# Growth: figures of `benchmarks/growth.py`\n",
        f"{machine['cores']} cores, {machine['threads']} threads, {machine['architecture']} "
        f"{machine['capability']}, torch {machine['torch']}.\n",
        *context(results.get("context", {})),
        *streams(results.get("streams", {})),
        *memory(results.get("memory", {})),
        *start(results.get("start", {})),
    ]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def context(found: Results) -> list[str]:
    """The first and last tenth of the way, so that what grows shows."""
    if not found:
        return []
    lines = [
        "Microseconds a character of one text, by how much was read before:\n",
        "| model | first tenth | last tenth | to | state, KiB |",
        "|---|---|---|---|---|",
    ]
    for name, points in found.items():
        tenth = max(1, len(points) // 10)
        micros = [point[1] for point in points]
        lines.append(
            f"| {name} | {median(micros[:tenth]):.1f} | {median(micros[-tenth:]):.1f} "
            f"| {points[-1][0]:,.0f} | {points[-1][2] / KIB:,.1f} |"
        )
    return [*lines, "", "![microseconds against context](growth-context.png)", ""]


def streams(found: Results) -> list[str]:
    if not found:
        return []
    nums = [num for num, _ in next(iter(found.values()))]
    lines = [
        "Characters a second in process, sampled, by streams:\n",
        f"| model | {' | '.join(str(num) for num in nums)} |",
        f"|---|{'---|' * len(nums)}",
    ]
    for name, points in found.items():
        lines.append(f"| {name} | {' | '.join(f'{rate:,.0f}' for _, rate in points)} |")
    return [*lines, "", "![characters a second against streams](growth-streams.png)", ""]


def memory(found: Results) -> list[str]:
    if not found:
        return []
    lines = [
        "Memory of a stream, KiB: its state, and all that a server with 128 open streams keeps:\n",
        "| model | state | resident |",
        "|---|---|---|",
    ]
    for name, each in found.items():
        lines.append(f"| {name} | {each['state'] / KIB:,.1f} | {each['resident'] / KIB:,.1f} |")
    return [*lines, ""]


def start(found: Results) -> list[str]:
    if not found:
        return []
    serve, torch_s = (found[name] for name in ("serve", "import_torch"))
    return [
        f"Seconds from `charlm serve` to its ready line: {median(serve):.2f} ({min(serve):.2f} to "
        f"{max(serve):.2f}); a Python that only imports torch takes {median(torch_s):.2f}.",
    ]


def write_plots(results: Results, directory: Path) -> None:
    if "context" in results:
        plot = Plot(
            title="Cost of a character",
            x_label="characters read before",
            y_label="microseconds",
            curves=[curve(*each) for each in results["context"].items()],
            is_log_x=True,
        )
        save_png(plot, directory / "growth-context.png")
    if "streams" in results:
        plot = Plot(
            title="Throughput in process",
            x_label="streams",
            y_label="characters a second",
            curves=[curve(*each) for each in results["streams"].items()],
            is_log_x=True,
            is_log_y=True,
        )
        save_png(plot, directory / "growth-streams.png")


def curve(name: str, points: list[list[float]]) -> Curve:
    return Curve(name=name, x=[point[0] for point in points], y=[point[1] for point in points])
