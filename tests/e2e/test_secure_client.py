"""Our client and our command over an encrypted connection, with a token."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from charlm_client import Client, InvalidRequest, NotAllowed, Security, SyncClient, Unavailable
from charlm_client.cli.main import app as command
from charlm_server.config.settings import TlsFiles
from tests.server.certificates import Authority
from tests.server.rpc.test_security import guarded, write_tokens
from tests.server.wire import serving

TOKEN = "remaerd"


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """Of a server that asks for a certificate and a token; the files are beside it."""
    authority = Authority()
    cert, key = authority.issue().write(tmp_path, "server")
    authority.issue("someone").write(tmp_path, "client")
    (ca := tmp_path / "ca.pem").write_bytes(authority.pem)
    tokens = write_tokens(tmp_path / "tokens.toml", dreamer='roles = ["generate"]')
    async with guarded(TlsFiles(cert=cert, key=key, client_ca=ca), tokens) as address:
        yield address


def shown(folder: Path, token: str = TOKEN) -> Security:
    cert, key = folder / "client.pem", folder / "client.key"
    return Security(ca=folder / "ca.pem", cert=cert, key=key, token=token)


async def test_a_client_with_certificate_and_token_is_served(address: str, tmp_path: Path) -> None:
    async with Client(address, security=shown(tmp_path)) as client:
        generation = await client.generate("a", model="lstm-char")
        with pytest.raises(NotAllowed, match="'score'"):
            await client.score("a", model="lstm-char")

    assert generation.outputs


async def test_a_wrong_token_is_reported_to_the_client(address: str, tmp_path: Path) -> None:
    async with Client(address, security=shown(tmp_path, "wrong")) as client:
        with pytest.raises(NotAllowed, match="known token"):
            await client.generate("a", model="lstm-char")


async def test_a_client_in_plain_text_is_not_served(address: str) -> None:
    async with Client(address.replace("localhost", "127.0.0.1"), timeout_s=10) as client:
        with pytest.raises(Unavailable, match="perhaps it asks for encryption"):
            await client.generate("a", model="lstm-char")


@pytest.mark.parametrize(
    ("host", "days_left", "is_trusted", "told"),
    [
        ("localhost", 0, True, "has expired"),
        ("localhost", 1, False, "not signed by an authority trusted here"),
        ("elsewhere.example", 1, True, "is for another host"),
    ],
)
async def test_a_client_that_cannot_trust_its_server_says_why(
    tmp_path: Path, host: str, days_left: int, is_trusted: bool, told: str
) -> None:
    authority = Authority()
    cert, key = authority.issue(host, days_left=days_left).write(tmp_path, "server")
    trusted = authority if is_trusted else Authority("other")
    (ca := tmp_path / "ca.pem").write_bytes(trusted.pem)
    async with guarded(TlsFiles(cert=cert, key=key)) as address:
        numbers = address.replace("localhost", "127.0.0.1")
        async with Client(numbers, timeout_s=10, security=Security(ca=ca)) as client:
            with pytest.raises(Unavailable, match=told):
                await client.list_models()


async def test_a_client_that_requires_encryption_reports_that_the_server_has_none(
    tmp_path: Path,
) -> None:
    (ca := tmp_path / "ca.pem").write_bytes(Authority().pem)
    security = Security(ca=ca)
    async with serving(("lstm", "char")) as wire, Client(wire.address, security=security) as client:
        with pytest.raises(Unavailable, match="it does not encrypt"):
            await client.list_models()


async def test_the_synchronous_client_is_served(address: str, tmp_path: Path) -> None:
    def ask() -> int:
        with SyncClient(address, security=shown(tmp_path)) as client:
            return len(client.generate("a", model="lstm-char").outputs)

    assert await asyncio.to_thread(ask) == 1


async def test_the_command_takes_it_all_from_the_environment(address: str, tmp_path: Path) -> None:
    environment = {
        "CHARLM_SERVER": address,
        "CHARLM_TLS_CA": str(tmp_path / "ca.pem"),
        "CHARLM_TLS_CERT": str(tmp_path / "client.pem"),
        "CHARLM_TLS_KEY": str(tmp_path / "client.key"),
        "CHARLM_TOKEN": TOKEN,
    }

    result = await asyncio.to_thread(CliRunner().invoke, command, ["models"], env=environment)

    assert result.exit_code == 0
    assert "lstm-char" in result.output


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="belong together"):
        Security(cert=Path("only.pem"))


def test_a_token_is_not_printed() -> None:
    assert TOKEN not in repr(Security(token=TOKEN))
