"""The results of `serving.py` as a page of tables."""

from pathlib import Path
from typing import Any

from serving_bars import bars

Results = dict[str, Any]


def write_page(results: Results, path: Path) -> None:
    machine = results["machine"]
    parts = [
        "# Serving: figures of `benchmarks/serving.py`\n",
        f"{machine['cores']} cores, {machine['threads']} threads, {machine['architecture']} "
        f"{machine['capability']}, torch {machine['torch']}. Tokens a second, medians; ratios of "
        "rounds in which all ways take turns: median (least to most).\n",
        *bars(),
    ]
    for name, streams in results["cases"].items():
        parts += [f"## {name}\n", *rates(streams), *ratios(streams)]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def rates(streams: Results) -> list[str]:
    names = list(next(iter(streams.values()))["rates"])
    lines = [f"| streams | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for num, found in streams.items():
        cells = [f"{found['rates'][each]:,.0f}" for each in names]
        lines.append(f"| {num} | {' | '.join(cells)} |")
    return [*lines, ""]


def ratios(streams: Results) -> list[str]:
    names = list(next(iter(streams.values()))["ratios"])
    lines = [f"| ratio | {' | '.join(f'{num} streams' for num in streams)} |"]
    lines.append(f"|---|{'---|' * len(streams)}")
    for name in names:
        found = [streams[num]["ratios"][name] for num in streams]
        cells = [
            f"{each['median']:.2f} ({each['least']:.2f} to {each['most']:.2f})" for each in found
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
