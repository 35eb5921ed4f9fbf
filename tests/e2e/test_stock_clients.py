"""Clients that are not ours: Node's grpc-js with the protos, and Python with reflection alone."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STOCK_CLIENT = Path(__file__).with_name("stock_client")
CACHE = ROOT / ".cache" / "stock_client"
PROMPT = "The quick "


@pytest.fixture(scope="module")
def node_client() -> Path:
    """The script beside its installed libraries."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed on this machine")
    wanted = (STOCK_CLIENT / "package.json").read_bytes()
    installed = CACHE / "installed.json"  # written last: an interrupted installation is repeated
    if not installed.exists() or installed.read_bytes() != wanted:
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_bytes(wanted)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(install, cwd=CACHE, check=True, timeout=300)
        installed.write_bytes(wanted)
    shutil.copy(STOCK_CLIENT / "client.js", CACHE)
    return CACHE / "client.js"


def test_grpc_js_generates_and_scores(node_client: Path, server_address: str) -> None:
    command = ["node", str(node_client), server_address, str(ROOT / "proto"), "models/fox", PROMPT]

    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert finished.returncode == 0, finished.stderr
    said = json.loads(finished.stdout)
    assert len(said["streamed"]) == 50
    assert said["generated"] == said["streamed"]
    assert said["logprobs"] == said["scored"]  # bit for bit, through the wire and JSON
    assert said["seed"] == str(2**64 - 1)
    assert said["finishReason"] == "FINISH_REASON_LENGTH"
    assert said["refused"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert said["models"] == ["models/bytes", "models/fox"]


def test_reflection_alone_is_enough(server_address: str) -> None:
    """No generated code: names, messages and methods all come from the server."""
    with grpc.insecure_channel(server_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        assert "charlm.v1.ScoringService" in database.get_services()

        def call(service: str, method: str, **fields: object) -> object:
            found = pool.FindServiceByName(service).FindMethodByName(method)
            request = GetMessageClass(found.input_type)(**fields)
            invoke = channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(found.output_type).FromString,
            )
            return invoke(request, timeout=30)

        generated = call(
            "charlm.v1.GenerationService",
            "Generate",
            model="models/fox",
            context={"text": PROMPT},
            stopping={"max_new_tokens": 20},
        )
        text = generated.outputs[0].text
        scored = call(
            "charlm.v1.ScoringService",
            "Score",
            model="models/fox",
            items=[{"context": {"text": PROMPT}, "text": text}],
        )

        assert len(text) == 20
        assert list(scored.scores[0].tokens.logprobs) == list(generated.outputs[0].tokens.logprobs)
        assert math.isfinite(scored.scores[0].total_logprob)
