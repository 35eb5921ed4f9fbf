"""What a server's log must not hold, at its most talkative: tokens, keys, hashes, texts."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from charlm_client import CharlmError, Client, NotAllowed, Security
from tests.e2e.conftest import CHARLM, STOP_TIMEOUT_S
from tests.server.certificates import Authority
from tests.server.rpc.test_security import write_tokens

TOKEN, WRONG = "rennurerof-fo-noket", "token-of-a-stranger"
TEXT = "The quick brown fox jumps over"
UNKNOWN = "SECRET \N{SNOWMAN} words"  # not in the vocabulary: refused


async def talk(address: str, security: Security) -> list[str]:
    """Calls of every kind, good and bad; the names of what was refused."""
    refused: list[str] = []
    async with Client(address, security=security) as client:
        state = await client.states.create(TEXT, model="fox")
        await client.states.advance(state.name, TEXT)
        await client.generate(TEXT, model="fox")
        await client.score([TEXT], model="fox")
        await client.encode([TEXT], model="fox")
        for bad in (
            client.generate(UNKNOWN, model="fox"),
            client.score([UNKNOWN], model="fox"),
            client.generate(TEXT, model=TEXT.replace(" ", "")),
            client.states.get(f"states/{TEXT.replace(' ', '')}"),
        ):
            with pytest.raises(CharlmError) as refusal:
                await bad
            refused.append(type(refusal.value).__name__)
    stranger = Security(ca=security.ca, token=WRONG)
    async with Client(address, security=stranger) as client:
        with pytest.raises(NotAllowed):
            await client.generate(TEXT, model="fox")
    return refused


@pytest.mark.slow
def test_nothing_secret_is_logged(checkpoints: Path, tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.issue().write(tmp_path, "server")
    (ca := tmp_path / "ca.pem").write_bytes(authority.pem)
    roles = 'roles = ["generate", "score", "state"]'
    tokens = write_tokens(tmp_path / "tokens.toml", **{TOKEN[::-1]: roles})
    digest = tokens.read_text().split('sha256 = "')[1][:64]
    command = [*CHARLM, "serve", str(checkpoints), "--port", "0", "--host", "localhost"]
    command += ["--tls-cert", str(cert), "--tls-key", str(key), "--tokens", str(tokens)]
    environment = {**os.environ, "CHARLM_THREADS": "1", "CHARLM_LOG_LEVEL": "debug"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip().rsplit(" ", 1)[-1]
        refused = asyncio.run(talk(address, Security(ca=ca, token=TOKEN)))
        server.send_signal(signal.SIGTERM)
        rest, log = server.communicate(timeout=STOP_TIMEOUT_S)

    assert len(refused) == 4
    assert "GenerationService/Generate" in log  # it did talk
    private = key.read_text().splitlines()[1]
    for secret in (TOKEN, WRONG, digest, private, TEXT, TEXT.replace(" ", ""), "SECRET"):
        assert secret not in log + rest
