"""The synchronous face does what the asynchronous client does."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator

import pytest
from fake_server import Script, serving

from charlm_client import Client, FinishReason, Gap, States, Stopping, SyncClient
from charlm_client.api.admin import Admin
from charlm_client.sync.client import SyncAdmin, SyncStates


@pytest.fixture
def sync_client() -> Iterator[SyncClient]:
    """A client whose server lives on another thread's event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = serving(Script())
    address = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    with SyncClient(address, timeout_s=5) as client:
        yield client
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_every_call_works_synchronously(sync_client: SyncClient) -> None:
    generation = sync_client.generate("x", model="a", stopping=Stopping(max_new_tokens=3))

    assert generation.outputs[0].text == "abc"
    assert sync_client.score(["ab"], model="a")[0].num_tokens == 2
    assert sync_client.compare(["ab"], models=["a", "b"])[0].best.model == "models/b"
    assert sync_client.next_distribution("x", model="a", top_k=2).top[1].text == "a"
    assert sync_client.decode([sync_client.encode(["abc"], model="a")[0].token_ids], model="a")
    assert len(sync_client.vocabulary(model="a")) == 28
    assert sync_client.fill_gap(Gap(left="", right="", length=1), model="a").is_exact
    assert sync_client.top_continuations("x", model="a", length=2).is_complete
    assert sync_client.only_model() == "models/alphabet"
    assert sync_client.get_model("alphabet").family == "lstm"
    assert sync_client.check_health()
    assert list(sync_client.watch_health()) == [True, False]


def test_a_stream_is_a_plain_iterator(sync_client: SyncClient) -> None:
    with sync_client.stream_generate("x", model="a") as stream:
        chunks = list(stream)

    assert "".join(chunk.text for chunk in chunks) == "abcde"
    assert chunks[-1].end is not None
    assert chunks[-1].end.finish_reason is FinishReason.LENGTH


def test_a_scored_stream_is_a_plain_iterator(sync_client: SyncClient) -> None:
    stream = sync_client.stream_score([b"ab", b"c"], model="m")

    assert [part.first_position for part in stream] == [0, 2]
    assert stream.total is not None
    assert (stream.total.num_tokens, stream.model_digest) == (3, "d1")
    assert sync_client.stream_score(b"abc", model="m").read_total() == stream.total


@pytest.mark.parametrize(
    ("ours", "theirs"), [(SyncClient, Client), (SyncStates, States), (SyncAdmin, Admin)]
)
def test_both_clients_have_the_same_methods(ours: type, theirs: type) -> None:
    def methods(face: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in inspect.getmembers(face, inspect.isfunction)
            if not name.startswith("_")
        }

    def properties(face: type) -> set[str]:
        names = {
            name for name, _ in inspect.getmembers(face, lambda each: isinstance(each, property))
        }
        return {name for name in names if not name.startswith("_")}

    assert methods(ours) == methods(theirs)
    assert properties(ours) == properties(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "returned"),
    [
        (SyncClient.generate, Client.generate, "Generation"),
        (SyncClient.stream_generate, Client.stream_generate, "SyncGenerationStream"),
        (SyncClient.compress, Client.compress, "SyncCodecStream"),
        (SyncStates.create, States.create, "State"),
        (SyncAdmin.loads, Admin.loads, "list[ModelLoad]"),
    ],
)
def test_help_shows_the_parameters_the_docstring_and_the_synchronous_result(
    ours: Callable[..., object], theirs: Callable[..., object], returned: str
) -> None:
    signature = inspect.signature(ours)
    result = signature.return_annotation

    assert signature.parameters == inspect.signature(theirs).parameters
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)
    assert (result if isinstance(result, str) else result.__name__) == returned
