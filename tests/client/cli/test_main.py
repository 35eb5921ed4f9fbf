"""The command line in processes of its own, against a fake server: output and exit codes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from fake_server import Failure, Script

from charlm.v1 import context_pb2, sampling_pb2
from charlm.v1.generation_pb2 import StreamGenerateRequest

pytestmark = pytest.mark.slow


@dataclass
class Finished:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Finished]]


@pytest.fixture
def charlm(address: str) -> Run:
    async def run(
        *arguments: str,
        stdin: str | bytes = b"",
        interrupt_after: bytes = b"",
        **environment: str,
    ) -> Finished:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "charlm_client",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "CHARLM_SERVER": address,
                "COLUMNS": "120",
                "PYTHONIOENCODING": "utf-8",
                **environment,
            },
        )
        assert process.stdout is not None
        first = await process.stdout.readexactly(len(interrupt_after))
        if interrupt_after:
            assert first == interrupt_after
            process.send_signal(signal.SIGINT)
        out, err = await process.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
        assert process.returncode is not None
        return Finished(process.returncode, (first + out).decode(), err.decode())

    return run


async def test_generate_prints_the_continuation_plain_in_a_pipe(charlm: Run) -> None:
    finished = await charlm("generate", "x", "--max-tokens", "8")

    assert (finished.code, finished.out, finished.err) == (0, "abcdefgh\n", "")


async def test_generate_passes_its_flags_on(charlm: Run, script: Script) -> None:
    sampling = {
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.75,
        "min_p": 0.125,
        "typical_p": 0.25,
        "repetition_penalty": 2.0,
        "presence_penalty": 3.0,
        "frequency_penalty": 4.0,
        "penalty_window": 5,
        "seed": 6,
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in sampling.items()]
    flags += ["--bias=7=-2.5", "--stop=E", "--max-time=8", "--model=mine"]
    flags += ["--include-stop", "--ignore-end-of-text", "--replace-unknown"]
    await charlm("generate", "-", *flags, stdin="from\r\nstdin")

    request = script.requests[0].generate
    assert request.model == "models/mine"
    assert request.context.text == "from\nstdin"
    assert request.unknown_characters == context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE
    assert {name: getattr(request.sampling, name) for name in sampling} == sampling
    assert [(bias.token_id, bias.bias) for bias in request.sampling.biases] == [(7, -2.5)]
    assert list(request.stopping.stop_sequences) == ["E"]
    assert request.stopping.include_stop_sequence
    assert request.stopping.ignore_end_of_text
    assert request.stopping.max_time.seconds == 8


async def test_generate_sends_the_constraint(charlm: Run, script: Script) -> None:
    await charlm("generate", "x", "--model=m", "--regex=a+[bc]", "--constraint-mode=smc")
    await charlm("generate", "x", "--model=m", "--choice=yes", "--choice=no")
    await charlm("generate", "x", "--model=m", "--allowed=abc")
    wrong = await charlm("generate", "x", "--model=m", "--allowed=abc", "--constraint-mode=magic")

    pattern, choices, allowed = (request.generate.constraint for request in script.requests)
    assert pattern == sampling_pb2.Constraint(regex="a+[bc]", mode="CONSTRAINT_MODE_SMC")
    assert list(choices.choices.texts) == ["yes", "no"]
    assert allowed.allowed_characters == "abc"
    assert "local_mask, rejection, smc" in wrong.err


async def test_a_constraint_mode_without_a_constraint_is_refused(
    charlm: Run, script: Script
) -> None:
    finished = await charlm("generate", "a", "--model=m", "--constraint-mode", "rejection")

    assert finished.code == 2
    assert "give --regex, --choice or --allowed" in finished.err
    assert not script.requests


async def test_flags_are_environment_variables_too(charlm: Run, script: Script) -> None:
    await charlm("generate", "x", CHARLM_MODEL="mine", CHARLM_TIMEOUT="2")

    assert script.requests[0].generate.model == "models/mine"
    assert script.deadlines[0] is not None
    assert script.deadlines[0] < 2


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--top-k", "-1"], "--top-k is -1; it must be"),
        (["--seed", str(2**64)], f"from 0 to {2**64 - 1}"),
        (["--max-tokens", str(2**40)], "--max-tokens is 1099511627776; it must be"),
        (["--max-time", "nan"], "--max-time is nan; it must be"),
        (["--bias", "-1=2"], "--bias is -1; it must be"),
        (["-"], "standard input is not UTF-8: byte 1"),
        ([os.fsdecode(b"ab\xff")], "offset 2"),
    ],
    ids=str,
)
async def test_a_value_that_no_message_holds_is_named(
    charlm: Run, script: Script, flags: list[str], complaint: str
) -> None:
    prompt = [] if len(flags) == 1 else ["x"]

    finished = await charlm("generate", *prompt, *flags, stdin=b"a\xff")

    assert finished.code == 1
    assert complaint in finished.err
    assert len(finished.err.splitlines()) == 1
    assert not any(isinstance(sent, StreamGenerateRequest) for sent in script.requests)


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    reason="Ctrl-C is ignored here, as by all that a shell starts in the background",
)
async def test_an_interrupted_generation_exits_with_130(charlm: Run, script: Script) -> None:
    script.hangs = True

    finished = await charlm("generate", "x", interrupt_after=b"a")

    assert (finished.code, finished.out) == (130, "a\n")
    assert "Traceback" not in finished.err


async def test_an_error_begins_on_a_new_line(charlm: Run, script: Script) -> None:
    script.hangs = True

    finished = await charlm("generate", "x", "--timeout", "1")

    assert (finished.code, finished.out) == (1, "a\n")
    assert "did not answer in time" in finished.err


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
    finished = await charlm("generate", "so [bold] :smile:\x1b[2J", "--color", "always")

    assert "so [bold] :smile:" in finished.out  # as it is: no markup, no pictures
    assert "\x1b[2J" not in finished.out  # a prompt cannot command the terminal


async def test_score_prints_a_row_a_token_in_a_pipe(charlm: Run) -> None:
    finished = await charlm("score", "a\tb")

    rows = [line.split("\t") for line in finished.out.splitlines()]
    assert rows[0][0] == "offset"
    assert [json.loads(row[1]) for row in rows[1:]] == ["a", "\t", "b"]
    assert all(float(row[3]) == 1.0 for row in rows[1:])
    assert "bits per byte" in finished.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a TEXT, - for stdin, or --file FILE"),
        (["--lines"], "--lines needs --file FILE"),
        (["a", "--file", "book.txt"], "A text and --file book.txt were both given"),
        (["a", "--file", "book.txt", "--lines"], "A text and --file book.txt were both given"),
    ],
    ids=str,
)
async def test_score_takes_a_text_or_a_file(
    charlm: Run, script: Script, arguments: list[str], said: str
) -> None:
    finished = await charlm("score", *arguments)

    assert finished.code == 2
    assert said in finished.err
    assert not script.requests


async def test_score_colors_a_terminal_and_explains(charlm: Run) -> None:
    finished = await charlm("score", "ab\n", "--color", "always")

    assert "\x1b[" in finished.out
    assert "↵" in finished.out
    assert "surprisal in bits" in finished.out
    assert "bits per character" in finished.out


async def test_score_streams_files(charlm: Run, script: Script, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xef\xbb\xbfab\r\nc")

    rows = await charlm("score", "--file", str(file))
    machine = await charlm("score", "--file", str(file), "--json")
    total = await charlm("score", "--file", str(file), "--total")
    piped = await charlm("score", "--file", "-", "--total", "--json", stdin="abc")
    missing = await charlm("score", "--file", str(tmp_path / "none"))

    assert [line.split("\t")[1] for line in rows.out.splitlines()[1:]] == [
        '"a"', '"b"', '"\\n"', '"c"'
    ]  # fmt: skip
    assert "over 4 characters" in rows.err
    *parts, last = [json.loads(line) for line in machine.out.splitlines()]
    assert [offset for part in parts for offset in part["character_offsets"]] == [0, 1, 2, 3]
    assert (last["num_tokens"], last["model"]) == (4, "models/alphabet")
    assert total.out.count("\n") == 1
    assert "1.0000 bits per character" in total.out
    assert json.loads(piped.out)["num_tokens"] == 3
    assert missing.code == 1
    assert "cannot be read" in missing.err


async def test_a_file_of_more_than_a_message_keeps_its_rows_together(
    charlm: Run, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("abcdefg" * 20_000)

    finished = await charlm("score", "--file", str(file))

    rows = [line.split("\t") for line in finished.out.splitlines()[1:]]
    assert "".join(json.loads(row[1]) for row in rows) == "abcdefg" * 20_000
    assert [int(row[0]) for row in rows] == list(range(140_000))


async def test_a_short_file_is_colored_on_a_terminal_and_a_long_one_counted(
    charlm: Run, tmp_path: Path
) -> None:
    short, long, bad = (tmp_path / name for name in ("short.txt", "long.txt", "bad.txt"))
    short.write_text("abc")
    long.write_text("abc" * 30_000)
    bad.write_bytes(b"ab\xff")

    colored = await charlm("score", "--file", str(short), "--color=always")
    counted = await charlm("score", "--file", str(long), "--color=always")
    refused = await charlm("score", "--file", str(bad), "--color=always")

    assert "surprisal in bits" in colored.out
    assert "over 90000 characters" in counted.out
    assert counted.out.count("\n") == 1
    assert refused.code == 1
    assert "byte 2" in refused.err


async def test_next_lists_the_best(charlm: Run) -> None:
    plain = await charlm("next", "x", "--top-k", "2")
    shown = await charlm("next", "x", "--top-k", "2", "--color", "always")
    machine = await charlm("next", "x", "--top-k", "2", "--json")

    assert [line.split("\t")[:2] for line in plain.out.splitlines()] == [
        ["token_id", "text"],
        ["0", '""'],
        ["1", '"a"'],
    ]
    assert "end of text" in shown.out
    assert "█" in shown.out
    assert len(json.loads(machine.out)["top"]) == 2


async def test_models_are_listed(charlm: Run) -> None:
    plain = await charlm("models")
    shown = await charlm("models", "--color", "always")
    machine = await charlm("models", "--json")

    assert plain.out.split("\t")[:3] == ["models/alphabet", "lstm", "1234"]
    assert "1,234" in shown.out
    assert "BITS/CHARACTER" in shown.out
    assert json.loads(machine.out)["family"] == "lstm"


async def test_health_prints_the_status_and_exits_with_it(charlm: Run, script: Script) -> None:
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


async def test_several_models_need_a_model_flag(charlm: Run, script: Script) -> None:
    script.model_names = ["models/a", "models/b"]

    finished = await charlm("generate", "x")

    assert finished.code == 1
    assert "models/a, models/b" in finished.err


async def test_no_server_and_wrong_usage(charlm: Run) -> None:
    nowhere = await charlm("models", CHARLM_SERVER="127.0.0.1:1")
    unknown = await charlm("generate", "--no-such-flag")
    wrong_color = await charlm("models", "--color", "pink")

    assert (nowhere.code, unknown.code, wrong_color.code) == (1, 2, 2)
    assert "'pink' is not one of auto, always, never" in wrong_color.err
    assert "No charlm server answers" in nowhere.err
    assert "Traceback" not in nowhere.err + unknown.err + wrong_color.err


async def test_help_lists_every_command_and_loads_no_torch(charlm: Run) -> None:
    finished = await charlm("--help")

    for command in ("generate", "score", "next", "models", "health", "train", "evaluate", "serve"):
        assert command in finished.out


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "leaderboard", "diagnose", "export", "serve"]
)
async def test_commands_of_other_packages_have_examples_too(charlm: Run, command: str) -> None:
    finished = await charlm(command, "--help")

    assert f"\n charlm {command} " in finished.out
    assert "[dim]" not in finished.out


async def test_fill_finds_the_gap_by_its_mark(charlm: Run, script: Script) -> None:
    finished = await charlm("fill", "the c__t", "-n", "2", "--model=m")
    other = await charlm("fill", "a_b*c", "--mark=*", "--model=m", "--json")
    wrong = await charlm("fill", "no gap", "--model=m")

    assert finished.out.splitlines() == [
        "text\tposterior\ttotal_logprob_nats",
        '"aa"\t0.500000\t-1.000000',
        '"bb"\t0.250000\t-2.000000',
    ]
    first, second = script.requests
    assert (first.left.text, first.gap_length, first.right) == ("the c", 2, "t")
    assert (second.left.text, second.gap_length, second.right) == ("a_b", 1, "c")
    assert json.loads(other.out)["is_exact"]
    assert wrong.code == 2
    assert "0 gaps" in wrong.err


async def test_top_lists_the_continuations_and_what_may_be_missing(charlm: Run) -> None:
    finished = await charlm("top", "x", "-n", "2", "--length=3", "--model=m", "--max-steps=1")
    watched = await charlm("top", "x", "-n", "2", "--model=m", "--color=always")
    machine = await charlm("top", "x", "-n", "2", "--model=m", "--json")

    assert finished.out.splitlines()[1] == '"aaa"\t-0.693147'
    assert "incomplete" in finished.err
    assert "10.10 bits" in finished.err
    assert "'aaaaa'" in watched.out
    assert "50.0000%" in watched.out
    assert len(json.loads(machine.out)["continuations"]) == 2


async def test_compare_shows_every_model_and_the_likeliest_first(
    charlm: Run, script: Script, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\ntwo\n", encoding="utf-8")
    models = ["--model=a", "--model=b"]

    plain = await charlm("compare", "x\ny", *models, "--prior=1", "--prior=2.5")
    shown = await charlm("compare", "x\ny", *models, "--color=always")
    machine = await charlm("compare", "--lines", str(lines), *models, "--json")

    assert plain.out.splitlines() == [
        "text\tmodel\tposterior\tbits_per_byte\ttotal_logprob_nats",
        '"x\\ny"\tmodels/a\t0.25\t3.0000\t-3.000000',
        '"x\\ny"\tmodels/b\t0.75\t2.0000\t-2.000000',
    ]
    assert list(script.requests[0].priors) == [1, 2.5]
    assert shown.out.index("models/b") < shown.out.index("models/a")
    assert "75.00%" in shown.out
    rows = [json.loads(line) for line in machine.out.splitlines()]
    assert [(row["text"], row["best"]) for row in rows] == [
        ("one", "models/b"),
        ("two", "models/b"),
    ]


async def test_compare_without_a_model_takes_all_that_are_loaded(
    charlm: Run, script: Script
) -> None:
    script.model_names[:] = ["models/de", "models/en", "models/fr"]

    finished = await charlm("compare", "x")

    assert finished.code == 0
    assert list(script.requests[-1].models) == script.model_names
