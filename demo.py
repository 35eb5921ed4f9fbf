"""A demo of two minutes: train on the documentation of Python, serve the model, query it.

Run by `make demo`. Every step is a `charlm` command.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHARLM = [sys.executable, "-m", "charlm_client"]
CORPUS = "builtin:python-docs"
TRAINING_BUDGET = "60s"
PROMPT = "The for statement "
LINE_TO_SCORE = "A class definition is an executable statement. Xylophones rarely are."
STOP_TIMEOUT_S = 30


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="charlm-demo-") as folder:
        checkpoint = Path(folder) / "python-docs"
        tell(f"1. Train a small LSTM on {CORPUS} for {TRAINING_BUDGET}")
        charlm(
            "train", CORPUS, "--family", "lstm", "--budget", TRAINING_BUDGET, "--out", checkpoint
        )
        tell("2. Serve it")
        with serving(checkpoint) as address:
            tell("3. Stream a continuation, character by character")
            options = ["--max-tokens", "400", "--temperature", "0.7", "--seed", "1"]
            charlm("generate", PROMPT, *options, "--server", address)
            tell("4. Show the surprisal of each character of a line")
            charlm("score", LINE_TO_SCORE, "--color", "always", "--server", address)
        tell("The server has stopped. Now your own text: charlm train FILE --out DIR")


def tell(line: str) -> None:
    print(f"\n=== {line}", flush=True)


def charlm(*arguments: str | Path) -> None:
    subprocess.run([*CHARLM, *map(str, arguments)], check=True)


@contextmanager
def serving(checkpoint: Path) -> Iterator[str]:
    """A server process on a free port, stopped by SIGTERM."""
    command = [*CHARLM, "serve", str(checkpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield address_in(server)
        finally:
            server.terminate()
            server.wait(STOP_TIMEOUT_S)
    if server.returncode != 0:
        sys.exit(f"the server stopped with exit code {server.returncode}")


def address_in(server: "subprocess.Popen[str]") -> str:
    """The address at the end of the line that the server prints once it is ready."""
    assert server.stdout is not None
    ready_line = server.stdout.readline().strip()
    if not ready_line:
        sys.exit("the server did not start; its message is above")
    print(ready_line, flush=True)
    return ready_line.rsplit(" ", 1)[-1]


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)
