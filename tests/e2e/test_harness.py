"""The lm-evaluation-harness runs a local task on a served model, and its figures are ours."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from math import log
from pathlib import Path
from typing import Any

import pytest

from charlm_client import SyncClient
from charlm_client.types import Sampling, Stopping

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
import lm_eval
from lm_eval.tasks import TaskManager
from charlm_client.harness import CharlmLM
address, folder, *tasks = sys.argv[1:]
manager = TaskManager(include_path=folder, include_defaults=False)
found = lm_eval.simple_evaluate(
    model=CharlmLM(address, model="fox"), tasks=tasks, task_manager=manager, bootstrap_iters=0
)
print(json.dumps(found["results"]))
"""


def evaluated(address: str, folder: Path, documents: list[dict[str, str]]) -> dict[str, Any]:
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(task.format(data=data), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, address, str(folder), *TASKS],
        env={**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


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

    results = evaluated(server_address, tmp_path, documents)

    num_bytes = sum(len(text.encode()) for text in TEXTS)
    ours = -nats / num_bytes / log(2)
    assert f"{results['texts']['bits_per_byte,none']:.10f}" == f"{ours:.10f}"
    assert results["endings"]["acc,none"] == float(
        endings[0].total_logprob > endings[1].total_logprob
    )
    assert results["greedy"]["exact_match,none"] == 1.0
