"""The results of `serving_gpu.py` as a page of tables."""

from pathlib import Path
from typing import Any

Results = dict[str, Any]


def write_page(results: Results, path: Path) -> None:
    machine = results["machine"]
    parts = [
        "# Serving on a GPU: figures of `benchmarks/serving_gpu.py`\n",
        f"{machine['gpu']}, torch {machine['torch']}, Triton {machine['triton']}; a large copy "
        f"reads and writes {machine['copied_bytes_per_s'] / 1e12:.2f} TB/s. Characters a second.\n",
    ]
    for name, found in results["cases"].items():
        parts += [f"## {name}\n", *_rates(found), *_checks(found)]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _rates(found: Results) -> list[str]:
    names = list(next(iter(found["rates"].values()), {}))
    lines = [
        f"| streams | {' | '.join(names)} | memory roofline | burst of it |",
        f"|---|{'---|' * (len(names) + 2)}",
    ]
    for num, rates in found["rates"].items():
        bound, burst = found["roofline"].get(num, 0.0), rates.get("burst")
        share = f"{burst / bound:.1%}" if isinstance(burst, float) and bound else "-"
        cells = [_shown(rates.get(each)) for each in names]
        lines.append(f"| {num} | {' | '.join(cells)} | {bound:,.0f} | {share} |")
    return [*lines, ""]


def _checks(found: Results) -> list[str]:
    return [*(f"- {what}: {result}" for what, result in found["checks"].items()), ""]


def _shown(rate: object) -> str:
    return f"{rate:,.0f}" if isinstance(rate, float) else str(rate)
