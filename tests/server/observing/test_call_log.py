"""One line a call: enough to identify it, and none of its text."""

import asyncio
import hashlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from charlm.v1 import generation_pb2 as gen
from charlm_server.observing.call_log import logger
from charlm_server.observing.log_format import JsonFormat, TextFormat, fields
from tests.server.wire import Wire, serving

MODEL = "models/lstm-char"
METHOD = "charlm.v1.GenerationService/Generate"


class Lines(logging.Handler):
    """What was logged, as the JSON format writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormat())
        self._written: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._written.put_nowait(self.format(record))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            return dict(json.loads(await self._written.get()))

    def is_empty(self) -> bool:
        return self._written.empty()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    handler = Lines()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined] # levels are remembered
    return handler


@pytest.fixture
async def wire(lines: Lines) -> AsyncIterator[Wire]:
    async with serving(("lstm", "char")) as running:
        yield running


async def test_a_call_is_one_line(wire: Wire, lines: Lines) -> None:
    asked = gen.GenerateRequest(
        model=MODEL, context={"text": "abc"}, stopping={"max_new_tokens": 9}, request_id="mine"
    )
    call = wire.generation.Generate(asked)
    text = (await call).outputs[0].text
    line = await lines.next()

    assert line["level"] == "INFO"
    assert (line["method"], line["code"], line["model"]) == (METHOD, "OK", MODEL)
    assert (line["characters_in"], line["characters_out"]) == (3, len(text))
    assert line["request_id"] == "mine"
    assert 0 <= line["queued_s"] <= line["duration_s"]
    assert "reason" not in line
    assert lines.is_empty()
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


async def test_a_stream_logs_the_time_of_its_first_character(wire: Wire, lines: Lines) -> None:
    await wire.stream(gen.GenerateRequest(model=MODEL))
    line = await lines.next()

    assert 0 < line["first_character_s"] <= line["duration_s"]


async def test_a_refusal_has_its_reason_and_an_id_for_both_sides(wire: Wire, lines: Lines) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await wire.generation.Generate(gen.GenerateRequest(model="models/none"))

    line = await lines.next()

    assert (line["code"], line["reason"]) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert dict(refusal.value.trailing_metadata() or ())["x-request-id"] == line["request_id"]


async def test_an_abandoned_call_is_cancelled(wire: Wire, lines: Lines) -> None:
    endless = gen.GenerateRequest(
        model=MODEL, stopping={"max_new_tokens": 1_000_000, "ignore_end_of_text": True}
    )
    call = wire.generation.StreamGenerate(gen.StreamGenerateRequest(generate=endless))
    while not (await call.read()).chunks:  # type: ignore[union-attr]  # it never ends
        pass
    call.cancel()
    line = await lines.next()

    assert line["code"] == "CANCELLED"
    assert line["characters_out"] != 0


@pytest.mark.parametrize(
    ("metadata", "told"),
    [("from-metadata", "from-metadata"), ("x" * 500, "x" * 128), ("", "from-request")],
)
async def test_the_id_is_the_callers_own(
    wire: Wire, lines: Lines, metadata: str, told: str
) -> None:
    await wire.generation.Generate(
        gen.GenerateRequest(model=MODEL, request_id="from-request"),
        metadata=(("x-request-id", metadata),),
    )

    assert (await lines.next())["request_id"] == told


async def test_an_id_that_metadata_cannot_hold_stays_in_the_log(wire: Wire, lines: Lines) -> None:
    call = wire.generation.Generate(gen.GenerateRequest(model=MODEL, request_id="다람쥐\n"))
    await call

    assert (await lines.next())["request_id"] == "다람쥐\n"
    assert "x-request-id" not in dict(await call.trailing_metadata())


def record(**named: str | int) -> logging.LogRecord:
    made = logging.LogRecord("a.logger", logging.INFO, "", 0, "a %s", ("message",), None)
    made.__dict__.update(fields(**named))
    return made


def test_a_text_line_cannot_be_forged() -> None:
    line = TextFormat().format(record(request_id='x\n2026 INFO "forged" a=b', num=3, empty=""))

    assert line.count("\n") == 0
    assert line.endswith(r'a message request_id="x\n2026 INFO \"forged\" a=b" num=3')


HOSTILE = "x\x1b[2J\n2026 INFO forged\x9b\u202e"


@pytest.mark.parametrize("formatter", [TextFormat(), JsonFormat()])
def test_no_message_and_no_exception_sends_a_control_code_or_forges_a_line(
    formatter: logging.Formatter,
) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        made = logging.LogRecord("a", logging.ERROR, "", 0, "no %s", (HOSTILE,), sys.exc_info())

    lines = formatter.format(made).split("\n")

    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines[1:] if not line.startswith("  ")]


def test_a_json_line_is_one_object_with_the_time_in_utc() -> None:
    told = json.loads(JsonFormat().format(record(request_id="x\ny")))

    assert told["message"] == "a message"
    assert told["request_id"] == "x\ny"
    assert told["time"].endswith("Z")


async def test_a_caller_is_logged_by_name_and_unknown_methods_without_theirs(
    lines: Lines, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"hunter2").hexdigest()
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[tokens]]\nname = "alice"\nsha256 = "{digest}"\nroles = ["generate"]\n')
    async with serving(("lstm", "char"), tokens=tokens) as wire:
        await wire.generation.Generate(
            gen.GenerateRequest(model=MODEL), metadata=(("authorization", "Bearer hunter2"),)
        )
        known = await lines.next()
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.channel.unary_unary("/evil.Service/Method")(b"")
        strange = await lines.next()

    assert (known["code"], known["caller"]) == ("OK", "alice")
    assert strange["method"] == "other"
    assert "caller" not in strange
