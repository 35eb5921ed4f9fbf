"""The lm-evaluation-harness runs a local task on a served model, and its figures are ours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import log
from pathlib import Path
from typing import Any

import pytest

from charlm_client import SyncClient
from charlm_client.types import Sampling, Stopping

CHARLM = [sys.executable, "-m", "charlm_client"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="the extra `harness` is not installed"),
]

TEXTS = ["The quick brown fox jumps over the lazy dog.\n", "The dog.\n" * 30_000, "lazy fox"]
TASKS = {
    "texts": """
task: texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: bits_per_byte
""",
    "endings": """
task: endings
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The quick"
doc_to_choice: [" brown fox", " dog.dog.x"]
doc_to_target: 0
metric_list:
  - metric: acc
""",
    "greedy": """
task: greedy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "The"
doc_to_target: "{{{{greedy}}}}"
generation_kwargs: {{until: ["q"], max_gen_toks: 12}}
metric_list:
  - metric: exact_match
""",
}
RUN = """
import json, sys
from pathlib import Path
import lm_eval
from lm_eval.tasks import TaskManager
from charlm_client.harness import CharlmLM
address, *asked = sys.argv[1:]
for model, folder in (each.split("=") for each in asked):
    tasks = [path.stem for path in Path(folder).glob("*.yaml")]
    manager = TaskManager(include_path=folder, include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=CharlmLM(address, model=model), tasks=tasks, task_manager=manager, bootstrap_iters=0
    )
    print(json.dumps(found["results"]))
"""


def write_tasks(folder: Path, tasks: Iterable[str], documents: list[dict[str, str]]) -> None:
    folder.mkdir(exist_ok=True)
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")
    for name in tasks:
        (folder / f"{name}.yaml").write_text(TASKS[name].format(data=data), encoding="utf-8")


def evaluated(address: str, folders: dict[str, Path], cache: Path) -> list[dict[str, Any]]:
    """What the harness says of each model in the tasks of its folder."""
    asked = [f"{model}={folder}" for model, folder in folders.items()]
    done = subprocess.run(
        [sys.executable, "-c", RUN, address, *asked],
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_its_figures_are_those_of_the_service(server_address: str, tmp_path: Path) -> None:
    with SyncClient(server_address) as client:
        nats = sum(
            client.stream_score(text.encode(), model="fox", returns="total")
            .read_total()
            .total_logprob
            for text in TEXTS
        )
        endings = client.score([" brown fox", " dog.dog.x"], model="fox", context="The quick")
        stopping = Stopping(max_new_tokens=12, stop_sequences=("q",))
        greedy = client.generate(
            "The", model="fox", sampling=Sampling(temperature=0), stopping=stopping
        )
    documents = [{"text": text, "greedy": greedy.outputs[0].text} for text in TEXTS]
    write_tasks(tmp_path / "tasks", TASKS, documents)

    (results,) = evaluated(server_address, {"fox": tmp_path / "tasks"}, tmp_path / "cache")

    num_bytes = sum(len(text.encode()) for text in TEXTS)
    ours = -nats / num_bytes / log(2)
    assert f"{results['texts']['bits_per_byte,none']:.10f}" == f"{ours:.10f}"
    assert results["endings"]["acc,none"] == float(
        endings[0].total_logprob > endings[1].total_logprob
    )
    assert results["greedy"]["exact_match,none"] == 1.0


PIECES, LINES = "The quick brown fox jumps over the lazy dog.\n" * 60, "emma\nolivia\nava\n" * 60
PIECES_OF_300 = ("--vocabulary", "sentencepiece", "--vocab-size", "300")


def test_bits_per_byte_are_the_trainers_and_the_services_to_the_last_digit(tmp_path: Path) -> None:
    """One text in one pass, in pieces; and lines, each a text of its own with its end."""
    for name, text, held_out, *options in (
        ("pieces", PIECES, PIECES[7:900], "--steps", "5", *PIECES_OF_300),
        ("lines", LINES, "ava\nemma\nvia\n", "--unit", "line", "--family", "ngram"),
    ):
        corpus = tmp_path / "corpus.txt"
        corpus.write_text(text, encoding="utf-8")
        (tmp_path / f"{name}.txt").write_text(held_out, encoding="utf-8")
        told("train", corpus, "--out", tmp_path / "models" / name, *options)
        write_tasks(tmp_path / name, ["texts"], [{"text": held_out}])
    pieces, lines = tmp_path / "pieces.txt", tmp_path / "lines.txt"

    trainers = [
        told("evaluate", tmp_path / "models" / file.stem, file, "--exact", "--json")["validation"]
        for file in (pieces, lines)
    ]
    with served(tmp_path / "models") as address:
        asking = ["--model", "pieces", "--server", address]
        scored = told("score", "--file", pieces, "--total", "--json", *asking)
        folders = {file.stem: tmp_path / file.stem for file in (pieces, lines)}
        harness = evaluated(address, folders, tmp_path / "cache")

    ours = [evaluations[0]["bits_per_byte"] for evaluations in trainers]
    assert [found["texts"]["bits_per_byte,none"] for found in harness] == ours
    assert scored["bits_per_byte"] == ours[0]


def told(*arguments: str | Path) -> dict[str, Any]:
    """The last object that a command prints, if it prints any."""
    done = subprocess.run(
        [*CHARLM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    found: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    return found


@contextmanager
def served(checkpoints: Path) -> Iterator[str]:
    command = [*CHARLM, "serve", str(checkpoints), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip().rsplit(" ", 1)[-1]
        server.terminate()
        assert server.wait(30) == 0
