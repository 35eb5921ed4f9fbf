"""Every RPC has a method in both clients and a command, and is documented."""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pytest
import typer
from google.protobuf.descriptor import Descriptor, ServiceDescriptor

from charlm_client import Client, SyncClient
from charlm_client.api.admin import Admin
from charlm_client.api.states import States
from charlm_client.cli.main import app
from charlm_client.sync.client import SyncAdmin, SyncStates

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "proto" / "charlm" / "v1"
DOCUMENTS = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
)
CLIENT = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "client" / "charlm_client").rglob("*.py")
)


@dataclass(frozen=True, slots=True)
class Face:
    """How people ask for one RPC: a method of the clients, and a command."""

    method: str
    command: str


FACES = {
    "GenerationService.Generate": Face("generate", "generate"),
    "GenerationService.StreamGenerate": Face("stream_generate", "generate"),
    "ScoringService.Score": Face("score", "score"),
    "ScoringService.StreamScore": Face("stream_score", "score"),
    "ScoringService.GetNextDistribution": Face("next_distribution", "next"),
    "ScoringService.Compare": Face("compare", "compare"),
    "InferenceService.FillGap": Face("fill_gap", "fill"),
    "InferenceService.ListTopContinuations": Face("top_continuations", "top"),
    "StateService.CreateState": Face("states.create", "state create"),
    "StateService.AdvanceState": Face("states.advance", "state advance"),
    "StateService.ForkState": Face("states.fork", "state fork"),
    "StateService.GetState": Face("states.get", "state show"),
    "StateService.ListStates": Face("states.list", "state list"),
    "StateService.DeleteState": Face("states.delete", "state delete"),
    "StateService.ExportState": Face("states.export", "state export"),
    "StateService.ImportState": Face("states.import_", "state import"),
    "TokenizerService.Encode": Face("encode", "encode"),
    "TokenizerService.Decode": Face("decode", "decode"),
    "TokenizerService.GetVocabulary": Face("vocabulary", "vocabulary"),
    "CodecService.Compress": Face("compress", "compress"),
    "CodecService.Decompress": Face("decompress", "decompress"),
    "ModelService.ListModels": Face("list_models", "models"),
    "ModelService.GetModel": Face("get_model", "models"),
    "AdminService.LoadModel": Face("admin.load_model", "admin load"),
    "AdminService.UnloadModel": Face("admin.unload_model", "admin unload"),
    "AdminService.SetAlias": Face("admin.set_alias", "admin alias"),
    "AdminService.GetLoad": Face("admin.loads", "admin list"),
}
every_rpc = pytest.mark.parametrize("rpc", FACES)


def services() -> Iterator[ServiceDescriptor]:
    for path in sorted(CONTRACT.glob("*.proto")):
        module = importlib.import_module(f"charlm.v1.{path.stem}_pb2")
        yield from module.DESCRIPTOR.services_by_name.values()


def commands(group: typer.Typer, prefix: str = "") -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield prefix + (command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{inner.name} ")


def test_the_table_of_methods_and_commands_lists_every_rpc() -> None:
    found = {
        f"{service.name}.{method.name}" for service in services() for method in service.methods
    }

    assert found == set(FACES)


SAYS_NOTHING_OF_PROBABILITIES = {
    *("TokenizerService", "AdminService"),
    *("StateService.DeleteState", "StateService.ExportState"),  # which is in the exported bytes
}


def tells_numerics(message: Descriptor) -> bool:
    inner = [field.message_type for field in message.fields if field.message_type]
    return any(each.name == "Numerics" or tells_numerics(each) for each in inner)


def test_every_answer_says_by_which_arithmetic() -> None:
    silent = {
        f"{service.name}.{method.name}"
        for service in services()
        for method in service.methods
        if not tells_numerics(method.output_type)
    }

    allowed = SAYS_NOTHING_OF_PROBABILITIES
    assert {rpc for rpc in silent if not {rpc, rpc.partition(".")[0]} & allowed} == set()


@every_rpc
def test_both_clients_have_a_method_that_asks_it(rpc: str) -> None:
    faces = {
        "": (Client, SyncClient),
        "states": (States, SyncStates),
        "admin": (Admin, SyncAdmin),
    }
    owner, _, method = FACES[rpc].method.rpartition(".")

    for face in faces[owner]:
        assert callable(attrgetter(method)(face))
    if owner:
        for client in (Client, SyncClient):
            assert isinstance(inspect.getattr_static(client, owner), property)
    name = rpc.rpartition(".")[2]
    assert re.search(rf"\.{name}\b", CLIENT)


@every_rpc
def test_there_is_a_command_for_it(rpc: str) -> None:
    assert FACES[rpc].command in set(commands(app))


@every_rpc
def test_the_documents_name_it_and_show_its_method(rpc: str) -> None:
    face = FACES[rpc]

    assert re.search(rf"\b{rpc.rpartition('.')[2]}\b", DOCUMENTS)
    assert re.search(rf"\.{re.escape(face.method)}\b|`{face.method.split('.')[-1]}`", DOCUMENTS)
    assert re.search(rf"charlm {face.command}\b|`{face.command.split()[-1]}\b", DOCUMENTS)
