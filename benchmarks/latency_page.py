"""The results of `latency.py` as a page."""

from pathlib import Path
from typing import Any

Results = dict[str, Any]


def write_page(results: Results, path: Path) -> None:
    machine = results["machine"]
    lines = [
        "# Latency: figures of `benchmarks/latency.py`\n",
        f"{machine['cores']} cores, {machine['threads']} threads, {machine['architecture']} "
        f"{machine['capability']}, torch {machine['torch']}. Milliseconds to the first character "
        "through gRPC, of an idle server and of one with 63 other streams, long ones or short ones "
        "that bring a new call every few milliseconds; the bound is three times the idle one and a "
        "step of 64 rows. Then, in steps, what one tick spends on a prompt of 10,000 characters "
        "while 63 rows wait for their next step.\n",
        "| model | step | idle p50, p99 | beside long ones | beside short ones | bound of p99 "
        "| pause p50, p99, most |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [row(name, found) for name, found in results["cases"].items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(name: str, found: Results) -> str:
    idle, pause = found["idle"], found["pause_in_steps"]
    bound = 3 * idle["p99"] + found["step_s"]
    cells = [
        name,
        ms(found["step_s"]),
        *(
            f"{ms(each['p50'])}, {ms(each['p99'])}"
            for each in (idle, found["long"], found["short"])
        ),
        ms(bound),
        f"{pause['p50']:.2f}, {pause['p99']:.2f}, {pause['most']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
