"""kill -9 of servers, clients and trainers at any moment: nothing torn, no promise broken."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from charlm_client import After, Client, Resuming, Sampling, StateNotFound, Stopping
from charlm_client.types import Chunk
from charlm_model.checkpoint import load
from tests.chaos import form
from tests.chaos.conftest import ALPHABET
from tests.chaos.server_process import CHARLM, ServerProcess, load_at_rest, running

# A server takes seconds to start on a busy machine.
PATIENT = Resuming(max_attempts=1_000, longest_wait_s=0.2)
NUM_STREAMS, NUM_TOKENS = 6, form.of(4_000, 20_000)
NUM_SERVER_KILLS, NUM_CLIENT_KILLS, NUM_TRAINER_KILLS = (
    form.of(3, 10),
    form.of(8, 60),
    form.of(4, 25),
)
NUM_STEPS = str(form.of(60, 200))  # of a trainer that lives long enough to be killed so often


def told(chunks: Sequence[Chunk]) -> tuple[bytes, list[int], list[float]]:
    """Everything in the chunks, to the last bit."""
    return (
        b"".join(chunk.data for chunk in chunks),
        [token for chunk in chunks for token in chunk.token_ids],
        [logprob for chunk in chunks for logprob in chunk.logprobs],
    )


class Reading:
    """Several streams at once, and a word when a number of tokens has come."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.num_tokens = self.num_resumptions = 0
        self._came = asyncio.Event()

    async def all(self) -> list[tuple[bytes, list[int], list[float]]]:
        async with Client(self._address, timeout_s=300.0, resuming=PATIENT) as client:
            return await asyncio.gather(*(self._one(client, seed) for seed in range(NUM_STREAMS)))

    async def until(self, num_tokens: int) -> None:
        while self.num_tokens < num_tokens:
            self._came.clear()
            await self._came.wait()

    async def _one(self, client: Client, seed: int) -> tuple[bytes, list[int], list[float]]:
        stopping = Stopping(max_new_tokens=NUM_TOKENS, ignore_end_of_text=True)
        sampling = Sampling(seed=seed, repetition_penalty=1.1, penalty_window=20)
        chunks = []
        async with client.stream_generate(
            "fox", model="fox", sampling=sampling, stopping=stopping
        ) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                self.num_tokens += len(chunk.token_ids)
                self._came.set()
            self.num_resumptions += stream.num_resumptions
        return told(chunks)


async def test_streams_go_on_when_servers_are_killed(
    fox: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    random, total = Random(1), NUM_STREAMS * NUM_TOKENS
    kills_at = sorted(
        random.randrange(total // 20, total * 9 // 10) for _ in range(NUM_SERVER_KILLS)
    )
    with running(tmp_path, [fox]) as server:
        port = server.port
        undisturbed = await Reading(server.address).all()
        reading = Reading(server.address)
        task = asyncio.create_task(reading.all())
        await reading.until(kills_at[0])
        server.kill()
    for num_tokens in kills_at[1:]:
        with running(tmp_path, [fox, "--port", port]) as server:
            await reading.until(num_tokens)
            server.kill()
    with running(tmp_path, [fox, "--port", port]):
        disturbed = await task

    assert disturbed == undisturbed
    assert reading.num_resumptions >= NUM_STREAMS
    figure(
        f"kill -9 of the server, {NUM_SERVER_KILLS} times: {NUM_STREAMS} streams of "
        f"{NUM_TOKENS:,} tokens went on {reading.num_resumptions} times, the same bits as without"
    )


async def test_an_exported_state_outlives_the_server(fox: Path, tmp_path: Path) -> None:
    """A kept state is lost with its server, which the error says; an exported one continues."""
    with running(tmp_path, [fox]) as server:
        async with Client(server.address) as client:
            state = await client.states.create("the quick brown fox", model="fox")
            exported = await client.states.export(state.name)
            following, _ = await client.states.advance(state.name, " jumps")
            wanted = await client.next_distribution(After(following.name), model="fox")
        server.kill()
    with running(tmp_path, [fox]) as server:
        async with Client(server.address) as client:
            with pytest.raises(StateNotFound):
                await client.states.get(state.name)
            brought = await client.states.import_(exported)
            again, _ = await client.states.advance(brought.name, " jumps")
            found = await client.next_distribution(After(again.name), model="fox")

    assert found.logprobs == wanted.logprobs


def writing_clients(server: ServerProcess, folder: Path, state: str) -> list[list[str]]:
    """Commands that write a file, the last argument before the flags."""
    text, out = folder / "text.txt", folder / "out"
    return [
        [*CHARLM, "compress", str(text), str(out), "--force", "--server", server.address],
        [*CHARLM, "state", "export", state, str(out), "--force", "--server", server.address],
    ]


async def test_killed_clients_tear_no_file_and_leave_nothing_in_the_server(
    fox: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    random, out = Random(2), tmp_path / "out"
    letters = ALPHABET.replace("\n", "") * 3_000
    (tmp_path / "text.txt").write_text(letters, encoding="utf-8")
    num_killed = 0
    with running(tmp_path, [fox, "--admin"]) as server:
        async with Client(server.address) as client:
            state = await client.states.create("the fox", model="fox", time_to_live_s=600.0)
            for command in writing_clients(server, tmp_path, state.name):
                await done(command)
                whole = out.read_bytes()
                out.unlink()
                for _ in range(NUM_CLIENT_KILLS // 2):
                    num_killed += await dies_writing(command, random.uniform(0.1, 2.0))
                    assert not out.exists() or out.read_bytes() == whole
                await done(command)
                assert out.read_bytes() == whole
            load = await load_at_rest(client)
        assert load.num_states == 1
        assert server.stop() == 0
        assert server.faults() == []
    figure(f"kill -9 of clients that write: {num_killed} killed, no torn file, no row left")


async def done(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


async def dies_writing(command: list[str], seconds: float) -> bool:
    """Whether the command was killed before it was done."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        return True
    return False


async def test_a_killed_trainer_never_makes_a_server_load_a_partial_checkpoint(
    fox: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """A server watches the directory that a trainer, killed and resumed, writes its best into."""
    root, corpus = tmp_path / "models", tmp_path / "corpus.txt"
    root.mkdir()
    corpus.write_text("the cat sat on the mat.\nthe dog sat on the cat.\n" * 60, encoding="utf-8")
    killed_runs = Path(__file__).parents[1] / "training" / "killed_runs.py"
    train = [str(corpus), "--out", str(root / "cat"), "--family", "gru", "--steps", NUM_STEPS]
    train += [
        "--hidden-size",
        "16",
        "--num-layers",
        "1",
        "--batch-size",
        "4",
        "--window-length",
        "16",
    ]
    train += ["--save-interval", "0", "--seed", "3"]
    program = [sys.executable, str(killed_runs), str(NUM_TRAINER_KILLS), "5", "3.0", *train]
    watching = [fox, "--admin", "--model-root", root, "--watch", 0.1]
    with running(tmp_path, watching) as server:
        async with Client(server.address) as client:
            trainer = await asyncio.create_subprocess_exec(
                *program, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            ending = asyncio.create_task(trainer.communicate())
            num_asked = 0
            while not ending.done():
                for model in await client.list_models():
                    stopping = Stopping(max_new_tokens=20, ignore_end_of_text=True)
                    await client.generate("the", model=model.name, stopping=stopping)
                    num_asked += 1
            assert trainer.returncode == 0
            final = load(root / "cat").digest
            while final not in {model.digest for model in await client.list_models()}:
                pass
        assert server.stop() == 0
        assert [line for line in server.faults() if "stays as it is" not in line] == []
    killed = int(ending.result()[0].splitlines()[-1])
    assert killed == NUM_TRAINER_KILLS
    figure(
        f"kill -9 of a trainer, {killed} times, beside a server that watches: {num_asked:,} calls, "
        "none failed, the last model is served"
    )
