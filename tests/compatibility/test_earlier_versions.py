"""Files of earlier versions are read to the same bits, or refused in a sentence that says why."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from charlm.v1 import generation_pb2
from charlm_client import After, Client, CodecMismatch, StateMismatch
from charlm_model import checkpoint as checkpoints
from charlm_model.kernels.cpu import ARITHMETIC
from tests.compatibility.earlier import (
    FAMILIES,
    FILE,
    MODELS,
    TEXT,
    request_of,
    serving,
    streamed,
    told,
)

# A folder for every arithmetic, made by `earlier.py` of the version that had it.
FOLDERS = {
    int(path.name.rpartition("-")[2]): path for path in Path(__file__).parent.glob("charlm-*")
}
SAME_BITS = FOLDERS[ARITHMETIC]
OTHER_BITS = [path for arithmetic, path in FOLDERS.items() if arithmetic != ARITHMETIC]
each_folder = pytest.mark.parametrize("folder", FOLDERS.values(), ids=lambda path: path.name)
each_folder_of_other_bits = pytest.mark.parametrize(
    "folder", OTHER_BITS, ids=lambda path: path.name
)
Known = dict[str, dict[str, Any]]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[str, Client, Known]]:
    """Today's server of a folder's checkpoints, with other threads than those that wrote it."""
    known = json.loads((folder / "known.json").read_text(encoding="utf-8"))
    async with serving(folder, threads=2) as address, Client(address) as client:
        yield address, client, known


@each_folder
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_loaded_and_verified(folder: Path, family: str) -> None:
    checkpoints.verify_golden(checkpoints.load(folder / family))


@each_folder
async def test_models_say_what_they_said(folder: Path) -> None:
    """Log-probs and texts are float32 and tokens: no arithmetic so far moved them here."""
    async with opened(folder) as (_, client, known):
        for model in MODELS:
            found = await told(client, model)
            assert found == {key: known[model][key] for key in found}


async def test_states_resume_tokens_and_compressed_files_of_the_same_bits_go_on() -> None:
    async with opened(SAME_BITS) as (address, client, known):
        for model in MODELS:
            state = await client.states.import_(b64decode(known[model]["state"]))
            ahead = await client.next_distribution(After(state.name), model=model)
            assert ahead == await client.next_distribution(TEXT, model=model)
            file = client.decompress(b64decode(known[model]["compressed"]), model=model)
            assert await file.read() == FILE
            rest = await streamed(address, resumed(model, known))
            assert "".join(chunk.text for chunk in rest) == known[model]["rest"]


@each_folder_of_other_bits
async def test_states_files_and_resume_tokens_of_other_bits_are_refused(folder: Path) -> None:
    async with opened(folder) as (address, client, known):
        for model in MODELS:
            with pytest.raises(StateMismatch, match="charlm-"):
                await client.states.import_(b64decode(known[model]["state"]))
            with pytest.raises(CodecMismatch, match=f"charlm-{ARITHMETIC}/"):
                await client.decompress(b64decode(known[model]["compressed"]), model=model).read()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await streamed(address, resumed(model, known))
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def resumed(model: str, known: Known) -> generation_pb2.StreamGenerateRequest:
    """The request of a stream that was interrupted, with what was received of it."""
    request = request_of(model)
    request.resume.add(
        resume_token=b64decode(known[model]["resume_token"]),
        received={"ids": known[model]["received"]},
    )
    return request
