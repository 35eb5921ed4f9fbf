"""Commands of the documents that are not run here to their end, each with its reason."""

import re
from collections.abc import Iterable

# Never begun. `test_blocks` checks what can be checked: commands, flags, files and targets exist.
NOT_RUN = {
    r"make (demo|test)\b": "one takes minutes, the other would run itself",
    r"docker compose ": "needs a Docker engine: `make containers` runs these",
    r"kubectl apply ": "needs a cluster: tests/deploy checks what is applied",
    r"charlm generate .*dns:///charlm:": "is asked from a pod of that cluster",
    r"pip install ": "fetches packages",
    r"charlm serve-ray |serve deploy |charlm train .*--ray ": "needs a Ray cluster: see `make ray`",
    r"torchrun --nnodes 2 ": "needs two hosts",
    r"torchrun --nproc-per-node 2 ": "takes half a minute; tests/training runs it",
    r".*--device cuda\b|pytest tests/gpu |python benchmarks/.*(gpu)": "needs a GPU",
    r"charlm train builtin:": "takes up to half a minute; the folder has what it makes",
    r"charlm (leaderboard|diagnose) ": "trains models for minutes; tests/training runs both",
    r"charlm export .*--format (torch-export|onnx) ": "takes ten seconds; tests/training does it",
}

# Begun, and ended by Ctrl-C a moment after training began: its first line tells the parameters.
AT_WORK = "parameters"
INTERRUPTED = {
    r"charlm train .*--budget (3|10)m": "takes its whole budget",
    r"charlm train .*--steps 20000": "takes some minutes",
    r"charlm train .*--kernel-size 1": "takes a minute",
}


def exception(text: str, patterns: Iterable[str]) -> str:
    """The pattern that a command matches, or nothing."""
    return next((pattern for pattern in patterns if re.match(pattern, text)), "")
