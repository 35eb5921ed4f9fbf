"""A fake server, and a client that asks it."""

from collections.abc import AsyncIterator

import pytest
from fake_server import Script, serving

from charlm_client import Client


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def address(script: Script) -> AsyncIterator[str]:
    async with serving(script) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    async with Client(address, timeout_s=5) as client:
        yield client
