"""States over the real wire: kept, read on, forked, and taken to another server."""

import json
import subprocess
from pathlib import Path

import pytest

from charlm_client import After, Client, Gap, StateMismatch, StateNotFound, SyncClient
from charlm_client.types import Details, Sampling, Stopping
from tests.e2e.conftest import CHARLM
from tests.e2e.processes import serving

pytestmark = pytest.mark.slow
MODEL = "fox"


def charlm(address: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*CHARLM, "state", *words, "--server", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_each_place_of_a_score_has_the_distribution_after_what_is_before(
    server_address: str,
) -> None:
    async with Client(server_address) as client:
        (score,) = await client.score(
            ["fox"], model=MODEL, context="The ", details=Details(top_k=4, distributions=True)
        )
        whole = [
            await client.next_distribution(before, model=MODEL, top_k=4)
            for before in ("The ", "The f", "The fo")
        ]

    assert score.top == tuple(each.top for each in whole)
    assert score.distributions == tuple(each.logprobs for each in whole)


async def test_what_follows_a_state_is_what_follows_its_text(server_address: str) -> None:
    sampling, stopping = Sampling(seed=4), Stopping(max_new_tokens=20)
    async with Client(server_address) as client:
        state = await client.states.create("The quick", model=MODEL)
        state, logprob = await client.states.advance(state.name, " brown", etag=state.etag)
        (score,) = await client.score([" brown"], model=MODEL, context="The quick")
        after = await client.next_distribution(After(state.name), model=MODEL)
        whole = await client.next_distribution("The quick brown", model=MODEL)
        (one,) = (
            await client.generate(
                After(state.name, " fox"), model=MODEL, sampling=sampling, stopping=stopping
            )
        ).outputs
        (other,) = (
            await client.generate(
                "The quick brown fox", model=MODEL, sampling=sampling, stopping=stopping
            )
        ).outputs

    assert logprob == score.total_logprob
    assert after == whole
    assert (one.text, one.logprobs) == (other.text, other.logprobs)


async def test_every_question_can_be_asked_after_a_state(server_address: str) -> None:
    text = "The quick brown"
    async with Client(server_address) as client:
        state = After((await client.states.create(text, model=MODEL)).name)
        totals, gaps, tops = [], [], []
        for before in (state, text):
            stream = client.stream_score(b" fox", model=MODEL, context=before)
            totals.append(await stream.read_total())
            gap = Gap(left=before, right="ox", length=2, seed=1)
            gaps.append(await client.fill_gap(gap, model=MODEL))
            tops.append(await client.top_continuations(before, model=MODEL, length=2))

    for after_state, after_text in (totals, gaps, tops):
        assert after_state == after_text


async def test_a_fork_goes_its_own_way(server_address: str) -> None:
    async with Client(server_address) as client:
        state = await client.states.create("The", model=MODEL)
        state, _ = await client.states.advance(state.name, " lazy", checkpoint=True)
        (position,) = state.checkpointed_positions
        state, _ = await client.states.advance(state.name, " dog")
        fork = await client.states.fork(state.name, position=position)
        names = {each.name for each in await client.states.list(model=MODEL)}

        assert fork.num_tokens == position < state.num_tokens
        assert {fork.name, state.name} <= names
        with pytest.raises(StateMismatch):
            await client.states.advance(state.name, "x", etag=fork.etag)


def test_states_without_an_event_loop(server_address: str) -> None:
    with SyncClient(server_address) as client:
        state = client.states.create("The", model=MODEL, time_to_live_s=60)
        again = client.states.import_(client.states.export(state.name))

        assert client.states.get(again.name).num_tokens == state.num_tokens
        client.states.delete(state.name)
        with pytest.raises(StateNotFound):
            client.states.get(state.name)


def test_a_state_outlives_its_server(checkpoints: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.bin"
    with serving(checkpoints / "bytes") as first:
        made = charlm(first.address, "create", "The quick", "--json")
        assert made.returncode == 0, made.stderr
        name = json.loads(made.stdout)["name"]
        with SyncClient(first.address) as client:
            wanted = client.next_distribution(After(name), model="bytes")
        assert charlm(first.address, "export", name, str(file)).returncode == 0

    with serving(checkpoints / "bytes") as second:
        brought = charlm(second.address, "import", str(file), "--json")
        assert brought.returncode == 0, brought.stderr
        with SyncClient(second.address) as client:
            after = client.next_distribution(
                After(json.loads(brought.stdout)["name"]), model="bytes"
            )

    assert after == wanted


def test_errors_are_reported_in_a_sentence(server_address: str, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(b"CLMS and then nonsense")

    for words in (["show", "no such state"], ["import", str(damaged)]):
        done = charlm(server_address, *words)

        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
