"""Who may call: certificates and tokens, over the wire."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from charlm.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    state_pb2,
    state_pb2_grpc,
)
from charlm.v1 import generation_pb2 as gen
from charlm_server import new_token
from charlm_server.app import ADMIN, SERVICES, App
from charlm_server.calls.callers import Callers, callers_from
from charlm_server.config.limits import Limits
from charlm_server.config.settings import ServeConfig, TlsFiles
from charlm_server.errors.base import ServeError
from charlm_server.errors.overload import QuotaExceeded
from charlm_server.models.registry import Models
from charlm_server.rpc.auth_interceptor import ROLE_OF_SERVICE, AuthInterceptor
from charlm_server.rpc.disabled_services import OPTIONAL_SERVICES
from charlm_server.rpc.tls import server_credentials
from tests.server.certificates import Authority, Pair
from tests.server.wire import OWN_CONNECTION, details_of, load

MODEL = "models/lstm-char"
LIST = models_pb2.ListModelsRequest()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsFiles:
    cert, key = authority.issue().write(tmp_path, "server")
    return TlsFiles(cert=cert, key=key)


@asynccontextmanager
async def guarded(
    files: TlsFiles, tokens: Path | None = None, limits: Limits | None = None
) -> AsyncIterator[str]:
    """The port of a server on localhost."""
    config = ServeConfig(checkpoints={}, port=0, tls=files, tokens=tokens, drain_grace_s=5.0)
    app = App(config, Models(load(("lstm", "char"), limits=limits)))
    address = await app.start()
    try:
        yield "localhost:" + address.rsplit(":", 1)[1]
    finally:
        await app.drain()


@asynccontextmanager
async def calling(
    address: str, authority: Authority, token: str = "", shown: Pair | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(
        authority.pem, shown and shown.key, shown and shown.cert
    )
    if token:
        credentials = grpc.composite_channel_credentials(
            credentials, grpc.access_token_call_credentials(token)
        )
    async with grpc.aio.secure_channel(address, credentials, options=OWN_CONNECTION) as channel:
        yield channel


async def is_let_in(
    address: str, authority: Authority, shown: Pair | None = None, token: str = ""
) -> bool:
    async with calling(address, authority, token, shown) as channel:
        try:
            await models_pb2_grpc.ModelServiceStub(channel).ListModels(LIST)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return False
            raise
        return True


async def test_a_good_certificate_is_accepted(authority: Authority, files: TlsFiles) -> None:
    async with guarded(files) as address:
        assert await is_let_in(address, authority)


@pytest.mark.parametrize("host", ["localhost", "elsewhere.example"])
async def test_an_expired_or_a_strange_certificate_is_refused_by_the_client(
    authority: Authority, tmp_path: Path, host: str
) -> None:
    pair = authority.issue(host, days_left=0 if host == "localhost" else 1)
    cert, key = pair.write(tmp_path, "server")
    async with guarded(TlsFiles(cert=cert, key=key)) as address:
        assert not await is_let_in(address, authority)


async def test_only_clients_with_the_right_certificate_are_let_in(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    (client_ca := tmp_path / "ca.pem").write_bytes(authority.pem)
    async with guarded(replace(files, client_ca=client_ca)) as address:
        assert await is_let_in(address, authority, authority.issue("someone"))
        assert not await is_let_in(address, authority, authority.issue("someone", days_left=0))
        assert not await is_let_in(address, authority, Authority("other").issue("someone"))
        assert not await is_let_in(address, authority)


async def test_new_certificates_are_used_without_a_restart(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    successor = Authority("successor")
    async with guarded(files) as address:
        assert not await is_let_in(address, successor)
        successor.issue().write(tmp_path, "server")
        assert await is_let_in(address, successor)


async def test_a_new_authority_of_clients_is_used_without_a_restart(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    """Its old one is out from the next handshake on; who is inside goes on."""
    (client_ca := tmp_path / "ca.pem").write_bytes(authority.pem)
    successor = Authority("successor")
    old, new = authority.issue("someone"), successor.issue("someone")
    async with (
        guarded(replace(files, client_ca=client_ca)) as address,
        calling(address, authority, shown=old) as channel,
    ):
        inside = models_pb2_grpc.ModelServiceStub(channel)
        await inside.ListModels(LIST)
        assert not await is_let_in(address, authority, new)
        client_ca.write_bytes(successor.pem)
        assert await is_let_in(address, authority, new)
        assert not await is_let_in(address, authority, old)
        await inside.ListModels(LIST)


async def test_unusable_new_certificates_change_nothing(
    authority: Authority, files: TlsFiles
) -> None:
    async with guarded(files) as address:
        files.key.write_bytes(authority.issue().key)  # of another certificate
        assert await is_let_in(address, authority)


def test_a_key_of_another_certificate_is_refused_at_the_start(
    authority: Authority, files: TlsFiles
) -> None:
    files.key.write_bytes(authority.issue().key)
    with pytest.raises(ServeError, match="the key that belongs to the certificate"):
        server_credentials(files)


def write_tokens(path: Path, **roles_of: str) -> Path:
    """A file of tokens; each is its holder's name backwards."""
    blocks = []
    for name, rest in roles_of.items():
        digest = hashlib.sha256(name[::-1].encode()).hexdigest()
        blocks.append(f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\n{rest}\n')
    path.write_text("\n".join(blocks))
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(
        tmp_path / "tokens.toml",
        writer='roles = ["generate"]\nmax_concurrent = 1',
        scorer='roles = ["score"]\ncalls_per_minute = 2',
        operator='roles = ["admin"]',
    )


async def code_of(call: object) -> str:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_a_token_opens_what_its_roles_say(
    authority: Authority, files: TlsFiles, tokens: Path
) -> None:
    asked = gen.GenerateRequest(model=MODEL, stopping={"max_new_tokens": 1})
    found = {}
    async with guarded(files, tokens) as address:
        for token in ("", "wrong", "retirw", "rerocs", "rotarepo"):
            async with calling(address, authority, token) as channel:
                found[token] = [
                    await code_of(models_pb2_grpc.ModelServiceStub(channel).ListModels(LIST)),
                    await code_of(
                        generation_pb2_grpc.GenerationServiceStub(channel).Generate(asked)
                    ),
                    await code_of(
                        admin_pb2_grpc.AdminServiceStub(channel).GetLoad(admin_pb2.GetLoadRequest())
                    ),
                ]

    denied = "PERMISSION_DENIED"
    assert found.pop("") == found.pop("wrong") == ["UNAUTHENTICATED"] * 3
    assert found["retirw"] == ["OK", "OK", denied]
    assert found["rerocs"] == ["OK", denied, denied]
    assert found["rotarepo"][:2] == ["OK", denied]
    assert found["rotarepo"][2] != denied


def test_every_service_that_works_or_changes_needs_a_role() -> None:
    """A service of the contract that is in neither list would be open to every token."""
    only_tell = {"charlm.v1.ModelService", "charlm.v1.TokenizerService"}
    services = {service.full_name for service in [*SERVICES, ADMIN, *OPTIONAL_SERVICES]}

    assert services == ROLE_OF_SERVICE.keys() | only_tell


async def test_a_caller_cannot_see_the_states_of_another(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    rest = 'roles = ["state", "generate"]'
    tokens = write_tokens(tmp_path / "state-tokens.toml", alice=rest, robert=rest)
    async with guarded(files, tokens) as address:
        async with calling(address, authority, "ecila") as channel:
            alice = state_pb2_grpc.StateServiceStub(channel)
            name = (await alice.CreateState(state_pb2.CreateStateRequest(model=MODEL))).state.name
            assert await code_of(alice.GetState(state_pb2.GetStateRequest(name=name))) == "OK"
        async with calling(address, authority, "trebor") as channel:
            robert = state_pb2_grpc.StateServiceStub(channel)
            listed = await robert.ListStates(state_pb2.ListStatesRequest())
            asked = gen.GenerateRequest(model=MODEL, context={"state": {"name": name}})
            found = [
                await code_of(robert.GetState(state_pb2.GetStateRequest(name=name))),
                await code_of(robert.DeleteState(state_pb2.DeleteStateRequest(name=name))),
                await code_of(generation_pb2_grpc.GenerationServiceStub(channel).Generate(asked)),
            ]

    assert not listed.states
    assert found == ["NOT_FOUND"] * 3


async def test_an_unauthenticated_call_is_refused_before_its_request_is_read(
    authority: Authority, files: TlsFiles, tokens: Path
) -> None:
    """The request is never sent; a server that waited for it would never answer."""
    async with guarded(files, tokens) as address, calling(address, authority, "wrong") as channel:
        call = channel.stream_unary("/charlm.v1.GenerationService/Generate")()
        assert await code_of(asyncio.wait_for(call, 30)) == "UNAUTHENTICATED"


async def test_a_second_stream_of_one_that_may_have_one_is_refused_with_a_time(
    authority: Authority, files: TlsFiles, tokens: Path
) -> None:
    endless = gen.GenerateRequest(
        model=MODEL, stopping={"max_new_tokens": 100_000, "ignore_end_of_text": True}
    )
    async with guarded(files, tokens) as address, calling(address, authority, "retirw") as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.StreamGenerate(gen.StreamGenerateRequest(generate=endless))
        await anext(aiter(call))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.Generate(gen.GenerateRequest(model=MODEL))
        call.cancel()

    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "RetryInfo" in details_of(refusal.value)


async def test_a_token_has_its_share_of_the_queue_and_others_have_theirs(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    rest = 'roles = ["generate"]'
    tokens = write_tokens(tmp_path / "two.toml", alice=rest, robert=rest)
    endless = gen.GenerateRequest(
        model=MODEL,
        num_outputs=8,  # all rows
        stopping={"max_new_tokens": 100_000, "ignore_end_of_text": True},
    )
    short = gen.GenerateRequest(model=MODEL, stopping={"max_new_tokens": 1})
    async with (
        guarded(files, tokens, Limits(max_queued_requests=2)) as address,
        calling(address, authority, "ecila") as alices,
        calling(address, authority, "trebor") as roberts,
    ):
        alice = generation_pb2_grpc.GenerationServiceStub(alices)
        running = alice.StreamGenerate(gen.StreamGenerateRequest(generate=endless))
        await anext(aiter(running))
        asked = [asyncio.ensure_future(alice.Generate(short)) for _ in range(2)]
        [refused], [waiting] = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        robert = generation_pb2_grpc.GenerationServiceStub(roberts).Generate(short)
        running.cancel()
        answers = await asyncio.gather(waiting, robert)

    error = refused.exception()
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(error)["ErrorInfo"].reason == "CALLER_SHARE"  # type: ignore[attr-defined]
    assert "RetryInfo" in details_of(error)
    assert all(answer.outputs for answer in answers)


def test_a_rate_refills(tokens: Path) -> None:
    caller = Callers(tokens).caller("rerocs")

    def call(now: float) -> None:
        caller.begin("score", now)
        caller.end()

    call(0.0)
    call(0.0)
    with pytest.raises(QuotaExceeded) as refusal:
        call(0.0)
    call(30.0)

    assert refusal.value.retry_after_s == 30.0


def test_tokens_are_read_again_and_a_wrong_file_changes_nothing(tokens: Path) -> None:
    callers = Callers(tokens)
    write_tokens(tokens, novice='roles = ["score"]')
    os.utime(tokens, ns=(1, 1))
    assert callers.caller("ecivon").name == "novice"
    tokens.write_text("[[tokens]")
    os.utime(tokens, ns=(2, 2))
    assert callers.caller("ecivon").name == "novice"


def test_calls_that_outlast_their_file_are_counted_to_their_end(tokens: Path) -> None:
    callers = Callers(tokens)
    running = callers.caller("retirw")
    running.begin("generate", 0.0)
    write_tokens(tokens, writer='roles = ["generate"]\nmax_concurrent = 1')
    os.utime(tokens, ns=(1, 1))

    with pytest.raises(QuotaExceeded):
        callers.caller("retirw").begin("generate", 0.0)
    running.end()
    callers.caller("retirw").begin("generate", 0.0)


@pytest.mark.parametrize(
    ("rest", "complaint"),
    [
        ('roles = ["root"]', "unknown root"),
        ('roles = ["score"]\nmax_concurrent = 0', "must be 1 or more"),
        ('roles = ["score"]\npassword = "x"', "unknown password"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused(tmp_path: Path, rest: str, complaint: str) -> None:
    with pytest.raises(ServeError, match=complaint):
        Callers(write_tokens(tmp_path / "tokens.toml", someone=rest))


def test_a_holder_is_named_by_a_text(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(f'[[tokens]]\nname = 5\nsha256 = "{"ab" * 32}"\nroles = []\n')

    with pytest.raises(ServeError, match="name of a token is 5"):
        Callers(path)


def test_a_new_token_fits_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert new_token.main(["alice", "generate", "score"]) == 0
    printed = capsys.readouterr()
    (path := tmp_path / "tokens.toml").write_text(printed.out)

    assert Callers(path).caller(printed.err.strip()).name == "alice"
    assert printed.err.strip() not in printed.out
    assert callers_from(path)[0].roles == {"generate", "score"}


@pytest.mark.parametrize("path", ["nonsense", "", "/", "//", "grpc.health.v1.Health"])
async def test_a_path_that_names_no_service_is_refused_like_any_other(
    tmp_path: Path, path: str
) -> None:
    """gRPC's own clients cannot send such a path; a hand-made HTTP/2 request can."""
    guard = AuthInterceptor(Callers(write_tokens(tmp_path / "tokens.toml")))
    details = cast(Any, SimpleNamespace(method=path, invocation_metadata=()))

    async def absent(_details: object) -> None:
        return None

    handler = await guard.intercept_service(absent, details)

    assert handler is None or handler.request_streaming
