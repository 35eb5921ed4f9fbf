"""A real process: it says when it is ready, stops when asked, and explains why it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import typer

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import generation_pb2_grpc
from charlm_model import checkpoint
from charlm_server.cli import serve
from tests.server.wire import checkpoint_of, vocabulary_of

COMMAND = [sys.executable, "-m", "charlm_server"]
STOP_TIMEOUT_S = 30


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint on disk."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    made = checkpoint_of("lstm", vocabulary_of("char"))
    checkpoint.save(path, made.model, made.vocabulary, {})
    return path


@contextmanager
def process(*arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """A server on a free port; killed if the test has not stopped it."""
    command = [*COMMAND, *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


def address_of(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("charlm: serving models/tiny on 127.0.0.1:")
    return line.split()[-1]


def failure(*arguments: str | Path) -> str:
    """The one sentence of a server that does not start."""
    command = [*COMMAND, *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr.count("\n") == 1, finished.stderr
    return finished.stderr


@pytest.mark.slow
def test_sigterm_lets_a_running_call_finish(directory: Path) -> None:
    request = gen.StreamGenerateRequest(
        generate=gen.GenerateRequest(
            model="models/tiny", stopping={"max_new_tokens": 2000, "ignore_end_of_text": True}
        )
    )
    with process(directory) as server, grpc.insecure_channel(address_of(server)) as channel:
        call = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(request)
        responses = [next(call)]
        server.send_signal(signal.SIGTERM)
        responses += call
        code = server.wait(STOP_TIMEOUT_S)

    assert responses[-1].chunks[-1].end.finish_reason == gen.FINISH_REASON_LENGTH
    assert sum(len(c.tokens.token_ids) for r in responses for c in r.chunks) == 2000
    assert code == 0


@pytest.mark.slow
def test_sigterm_ends_a_call_that_does_not_finish_in_time(directory: Path) -> None:
    request = gen.StreamGenerateRequest(
        generate=gen.GenerateRequest(
            model="models/tiny", stopping={"max_new_tokens": 10**6, "ignore_end_of_text": True}
        )
    )
    options = "--drain-grace", "0.2"
    with (
        process(directory, *options) as server,
        grpc.insecure_channel(address_of(server)) as channel,
    ):
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.StreamGenerate(request)
        responses = [next(call)]
        server.send_signal(signal.SIGTERM)
        responses += call
        code = server.wait(STOP_TIMEOUT_S)

    assert responses[-1].chunks[-1].end.finish_reason == gen.FINISH_REASON_DRAINED
    assert code == 0


@pytest.mark.slow
def test_every_setting_can_come_from_the_environment(directory: Path) -> None:
    settings = {
        "CHARLM_CHECKPOINTS": str(directory),
        "CHARLM_HOST": "localhost",
        "CHARLM_PORT": "0",
    }
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        server.send_signal(signal.SIGINT)
        code = server.wait(STOP_TIMEOUT_S)

    assert line.startswith("charlm: serving models/tiny on localhost:")
    assert code == 0


@pytest.mark.slow
def test_a_process_logs_neither_texts_nor_tokens(directory: Path) -> None:
    flags = ["--log-level", "debug", "--log-format", "json", "--metrics-port", "0", "--port", "0"]
    secrets = ["squirrels at dawn", "hunter2"]
    with subprocess.Popen(
        [*COMMAND, str(directory), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        address = address_of(server)
        assert server.stdout is not None
        metrics_line = server.stdout.readline()
        with grpc.insecure_channel(address) as channel:
            generation_pb2_grpc.GenerationServiceStub(channel).Generate(
                gen.GenerateRequest(
                    model="models/tiny",
                    context={"text": secrets[0]},
                    stopping={"stop_sequences": ["nuts"]},
                ),
                metadata=(("authorization", f"Bearer {secrets[1]}"),),
            )
        server.send_signal(signal.SIGTERM)
        _, logged = server.communicate(timeout=STOP_TIMEOUT_S)

    lines = [json.loads(line) for line in logged.splitlines()]
    assert "charlm.v1.GenerationService/Generate" in [line.get("method") for line in lines]
    assert not [secret for secret in [*secrets, "nuts"] if secret in logged]
    assert metrics_line.startswith("charlm: metrics on http://127.0.0.1:")


def test_every_flag_has_an_environment_variable() -> None:
    app = typer.Typer()
    app.command()(serve)
    parameters = typer.main.get_command(app).params

    for parameter in parameters:
        if parameter.name not in {"help", "install_completion", "show_completion"}:
            name = str(parameter.name).upper()
            if name == "OTLP_ENDPOINT":  # other programs' name for it will do
                assert parameter.envvar == ["CHARLM_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
                continue
            # A client's certificate and a server's are not the same.
            assert parameter.envvar in {f"CHARLM_{name}", f"CHARLM_SERVE_{name}"}
            assert name.startswith("TLS_") == parameter.envvar.startswith("CHARLM_SERVE_")


@pytest.mark.slow
def test_help_answers_without_loading_torch() -> None:
    program = "import charlm_server.cli, sys; print('torch' in sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "False"


def test_a_wrong_path_is_reported(tmp_path: Path) -> None:
    assert "no directory" in failure(tmp_path / "missing")


def test_a_directory_that_is_not_a_checkpoint_is_reported(tmp_path: Path) -> None:
    assert "not a checkpoint" in failure(tmp_path)


@pytest.mark.slow
def test_traces_without_their_extra_are_refused_in_a_sentence(directory: Path) -> None:
    program = """if True:
        import runpy, sys
        sys.modules["opentelemetry"] = None
        runpy.run_module("charlm_server", run_name="__main__")
    """
    flags = ["--otlp-endpoint", "http://127.0.0.1:4317", "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "charlm[tracing]" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("flags", [("--log-format", "xml"), ("--log-level", "loud")])
def test_an_invalid_log_option_is_reported(directory: Path, flags: tuple[str, str]) -> None:
    assert flags[0] in failure(directory, *flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sentence"), [("cuda", "finds no GPU. Use cpu"), ("gpu", "The device 'gpu'")]
)
def test_a_missing_device_is_reported(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert sentence in failure(directory, "--device", name)


def test_an_address_that_others_reach_needs_a_flag(directory: Path) -> None:
    assert "--allow-insecure" in failure(directory, "--host", "0.0.0.0")


def test_tokens_in_plain_text_where_others_listen_need_a_flag(
    directory: Path, tmp_path: Path
) -> None:
    (tokens := tmp_path / "tokens.toml").touch()
    sentence = failure(directory, "--host", "0.0.0.0", "--tokens", tokens)

    assert "tokens would cross the network in plain text" in sentence
    assert "--allow-insecure" in sentence


@pytest.mark.slow
def test_a_damaged_checkpoint_is_reported(directory: Path, tmp_path: Path) -> None:
    damaged = copy_of(directory, tmp_path)
    weights = damaged / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)

    assert "model.safetensors" in failure(damaged)


@pytest.mark.slow
def test_a_truncated_checkpoint_is_reported(directory: Path, tmp_path: Path) -> None:
    damaged = copy_of(directory, tmp_path)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])

    assert "model.safetensors" in failure(damaged)


@pytest.mark.slow
def test_a_newer_format_is_reported_with_both_numbers(directory: Path, tmp_path: Path) -> None:
    newer = copy_of(directory, tmp_path)
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps({**config, "format_version": 99}))

    sentence = failure(newer)

    assert "99" in sentence
    assert str(checkpoint.FORMAT_VERSION) in sentence


@pytest.mark.slow
def test_two_models_with_one_name_are_reported(directory: Path, tmp_path: Path) -> None:
    assert "models/tiny" in failure(directory, copy_of(directory, tmp_path))


@pytest.mark.slow
def test_a_port_in_use_is_reported(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        sentence = failure(directory, "--port", str(port))

    assert f"127.0.0.1:{port}" in sentence
    assert "in use" in sentence


def copy_of(directory: Path, target: Path) -> Path:
    copy = target / directory.name
    copy.mkdir()
    for path in directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy
