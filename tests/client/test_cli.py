"""The command line in processes of its own, against a fake server: output and exit codes."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from fake_server import Failure, Script

pytestmark = pytest.mark.slow


@dataclass
class Finished:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Finished]]


@pytest.fixture
def charlm(address: str) -> Run:
    async def run(*arguments: str, stdin: str = "", server: str = address) -> Finished:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "charlm_client",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"CHARLM_SERVER": server, "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"},
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    return run


async def test_generate_prints_the_continuation_plain_in_a_pipe(charlm: Run) -> None:
    finished = await charlm("generate", "x", "--max-tokens", "8")

    assert (finished.code, finished.out, finished.err) == (0, "abcdefgh\n", "")


async def test_generate_passes_its_flags_on(charlm: Run, script: Script) -> None:
    flags = "--temperature 0.5 --top-k 3 --top-p 0.9 --min-p 0.1 --typical-p 0.8 --seed 4 --stop E"
    await charlm("generate", "-", *flags.split(), "--model", "mine", stdin="from stdin")

    request = script.requests[0].generate
    assert request.model == "models/mine"
    assert request.context.text == "from stdin"
    assert request.sampling.temperature == 0.5
    assert request.sampling.top_k == 3
    assert request.sampling.seed == 4
    assert list(request.stopping.stop_sequences) == ["E"]


async def test_generate_json_has_an_object_a_line(charlm: Run) -> None:
    finished = await charlm("generate", "x", "--json")

    lines = [json.loads(line) for line in finished.out.splitlines()]
    assert "".join(line["text"] for line in lines) == "abcde"
    assert lines[-1]["finish_reason"] == "length"
    assert lines[0]["seed"] == 7


async def test_several_outputs_are_numbered(charlm: Run) -> None:
    finished = await charlm("generate", "x", "-n", "2", "--max-tokens", "3")

    assert finished.out.splitlines() == ["[0] abc", "[1] abc"]


async def test_generate_shows_the_prompt_in_a_terminal(charlm: Run) -> None:
    finished = await charlm("generate", "so\x1b[2J", "--color", "always")

    assert "so" in finished.out
    assert "\x1b[2J" not in finished.out  # a prompt cannot command the terminal


async def test_score_prints_a_row_a_token_in_a_pipe(charlm: Run) -> None:
    finished = await charlm("score", "a\tb")

    rows = [line.split("\t") for line in finished.out.splitlines()]
    assert rows[0][0] == "offset"
    assert [json.loads(row[1]) for row in rows[1:]] == ["a", "\t", "b"]
    assert all(float(row[3]) == 1.0 for row in rows[1:])
    assert "bits per byte" in finished.err


async def test_score_colors_a_terminal_and_explains(charlm: Run) -> None:
    finished = await charlm("score", "ab\n", "--color", "always")

    assert "\x1b[" in finished.out
    assert "↵" in finished.out
    assert "surprisal in bits" in finished.out
    assert "bits per character" in finished.out


async def test_score_reads_files(charlm: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("abc")
    bad.write_bytes(b"ab\xff")

    scored = await charlm("score", "--file", str(good), "--json")
    refused = await charlm("score", "--file", str(bad))
    missing = await charlm("score", "--file", str(tmp_path / "none"))

    assert json.loads(scored.out)["num_tokens"] == 3
    assert (refused.code, missing.code) == (1, 1)
    assert "byte 2" in refused.err
    assert "cannot be read" in missing.err


async def test_next_lists_the_best(charlm: Run) -> None:
    plain = await charlm("next", "x", "--top-k", "2")
    shown = await charlm("next", "x", "--top-k", "2", "--color", "always")
    machine = await charlm("next", "x", "--top-k", "2", "--json")

    assert plain.out.splitlines()[1].startswith("\"'a'\"")
    assert "end of text" in shown.out
    assert "█" in shown.out
    assert len(json.loads(machine.out)["top"]) == 2


async def test_models_are_listed(charlm: Run) -> None:
    plain = await charlm("models")
    shown = await charlm("models", "--color", "always")
    machine = await charlm("models", "--json")

    assert plain.out.split("\t")[0] == "models/alphabet"
    assert "BITS/CHARACTER" in shown.out
    assert json.loads(machine.out)["family"] == "lstm"


async def test_health_says_and_exits(charlm: Run, script: Script) -> None:
    serving = await charlm("health")
    script.is_serving = False
    stopped = await charlm("health", "--json")

    assert (serving.code, serving.out) == (0, "SERVING\n")
    assert stopped.code == 1
    assert json.loads(stopped.out)["status"] == "NOT_SERVING"


async def test_an_error_is_one_sentence(charlm: Run, script: Script) -> None:
    script.failures.append(Failure(grpc.StatusCode.NOT_FOUND, "No model.", "MODEL_NOT_FOUND"))

    finished = await charlm("generate", "x", "--model", "none")

    assert finished.code == 1
    assert finished.err == "charlm: No model.\n"


async def test_several_models_ask_for_a_name(charlm: Run, script: Script) -> None:
    script.model_names = ["models/a", "models/b"]

    finished = await charlm("generate", "x")

    assert finished.code == 1
    assert "models/a, models/b" in finished.err


async def test_no_server_and_wrong_usage(charlm: Run) -> None:
    nowhere = await charlm("models", server="127.0.0.1:1")
    unknown = await charlm("generate", "--no-such-flag")
    wrong_color = await charlm("models", "--color", "pink")

    assert (nowhere.code, unknown.code, wrong_color.code) == (1, 2, 1)
    assert "No charlm server answers" in nowhere.err
    assert "Traceback" not in nowhere.err + unknown.err + wrong_color.err


async def test_help_lists_every_command_and_loads_no_torch(charlm: Run) -> None:
    finished = await charlm("--help")

    for command in ("generate", "score", "next", "models", "health", "train", "evaluate", "serve"):
        assert command in finished.out
