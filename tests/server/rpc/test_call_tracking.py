"""What every call leaves behind when it has ended."""

from dataclasses import dataclass, field

import pytest

from charlm_server.calls.call import Call
from charlm_server.models.usage import ModelUsage
from charlm_server.rpc.call_context import IncomingCall
from charlm_server.rpc.call_tracking import Calls
from charlm_server.rpc.in_process import CallContext


@dataclass
class UsedModel:
    name: str = "models/m"
    usage: ModelUsage = field(default_factory=ModelUsage)


class BrokenObserver:
    def began(self, call: Call) -> None:
        pass

    def ended(self, call: Call) -> None:
        raise OSError("the disk of the log is full")


def test_a_model_is_released_even_where_an_observer_fails() -> None:
    calls, model = Calls([BrokenObserver()]), UsedModel()
    incoming = IncomingCall("/charlm.v1.ScoringService/Score", (), "")

    with (
        pytest.raises(OSError, match="full"),
        calls.observed(incoming, None, CallContext()) as call,
    ):
        call.use(model)

    assert model.usage.num_calls == 0
