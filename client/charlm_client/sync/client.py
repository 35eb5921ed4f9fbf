"""The synchronous client: runs the asynchronous one on an event loop of its own thread."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from charlm_client.api.admin import Admin
from charlm_client.api.resuming import Resuming
from charlm_client.api.states import States
from charlm_client.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, Client
from charlm_client.security import Security
from charlm_client.sync.blocking import Blocking, blocking, streaming
from charlm_client.sync.streams import SyncCodecStream, SyncGenerationStream, SyncScoreStream

Result = TypeVar("Result")


class SyncStates(Blocking[States]):
    """`States` for programs without an event loop: `client.states` of a SyncClient."""

    create = blocking(States.create)
    advance = blocking(States.advance)
    fork = blocking(States.fork)
    get = blocking(States.get)
    list = blocking(States.list)
    delete = blocking(States.delete)
    export = blocking(States.export)
    import_ = blocking(States.import_)


class SyncAdmin(Blocking[Admin]):
    """`Admin` for programs without an event loop: `client.admin` of a SyncClient."""

    load_model = blocking(Admin.load_model)
    set_alias = blocking(Admin.set_alias)
    unload_model = blocking(Admin.unload_model)
    loads = blocking(Admin.loads)


class SyncClient(Blocking[Client]):
    """`Client` for programs without an event loop: the same methods, which block."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        security: Security | None = None,
        resuming: Resuming | None = None,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        client = Client(address, timeout_s=timeout_s, security=security, resuming=resuming)
        super().__init__(client, self._run_on_loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._run(self._asynchronous.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    generate = blocking(Client.generate)
    stream_generate = streaming(Client.stream_generate, SyncGenerationStream)
    score = blocking(Client.score)
    stream_score = streaming(Client.stream_score, SyncScoreStream)
    compare = blocking(Client.compare)
    next_distribution = blocking(Client.next_distribution)
    fill_gap = blocking(Client.fill_gap)
    top_continuations = blocking(Client.top_continuations)
    compress = streaming(Client.compress, SyncCodecStream)
    decompress = streaming(Client.decompress, SyncCodecStream)
    encode = blocking(Client.encode)
    decode = blocking(Client.decode)
    vocabulary = blocking(Client.vocabulary)
    list_models = blocking(Client.list_models)
    get_model = blocking(Client.get_model)
    only_model = blocking(Client.only_model)
    check_health = blocking(Client.check_health)

    @property
    def states(self) -> SyncStates:
        """Calls about kept states: create, advance, fork, export."""

        async def states() -> States:  # on the loop's thread: no other can make a channel
            return self._asynchronous.states

        return SyncStates(self._run(states()), self._run)

    @property
    def admin(self) -> SyncAdmin:
        """Calls of operators: load, alias and unload models."""

        async def admin() -> Admin:
            return self._asynchronous.admin

        return SyncAdmin(self._run(admin()), self._run)

    def watch_health(self, service: str = "") -> Iterator[bool]:
        """Whether it is serving: the present value, then one value for each change."""
        return self._items(self._asynchronous.watch_health(service))

    def _run_on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        finally:
            waiting.cancel()  # the call, when Ctrl-C ended the wait; otherwise harmless
