import asyncio

from charlm_server.calls.amounts import ModelCounters
from charlm_server.calls.call import Call
from charlm_server.models.usage import ModelUsage


class Model:
    def __init__(self, name: str) -> None:
        self.name, self.usage = name, ModelUsage()


def new_call() -> Call:
    return Call(method="m", request_id="1")


async def test_a_model_is_in_use_until_the_call_ends() -> None:
    model, call = Model("models/a"), new_call()

    assert call.use(model) is model
    call.use(model)  # a second time changes nothing

    assert model.usage.num_calls == 1
    assert not await model.usage.unused_within(0.001)
    call.release_models()
    assert await model.usage.unused_within(0.001)


async def test_a_model_is_unused_once_its_last_call_has_ended() -> None:
    model, calls = Model("models/a"), [new_call(), new_call()]
    for call in calls:
        call.use(model)
    waiting = asyncio.create_task(model.usage.unused_within(10))

    calls[0].release_models()
    await asyncio.sleep(0)
    assert not waiting.done()
    calls[1].release_models()

    assert await waiting


def test_text_counts_for_the_model_that_the_call_uses() -> None:
    counters = {"models/a": ModelCounters()}
    call = new_call()
    call.counters_of = counters.__getitem__

    call.use(Model("models/a"))

    assert call.model == "models/a"


def test_callers_without_a_token_share_fairly_by_address() -> None:
    assert Call(method="m", request_id="1", address="ipv4:10.0.0.1").turns_of == "ipv4:10.0.0.1"
    named = Call(method="m", request_id="1", address="ipv4:10.0.0.1", caller="a")
    assert named.turns_of == "a"
