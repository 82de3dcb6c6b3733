"""Servers that many tests share: each is started once per session, and its tests run in the session's event loop."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.aimock import running_aimock
from support.live import LiveServer
from support.provided import Provided, provided
from support.workshop import Workshop, workshop

SCRIPTED: dict[str, dict[str, object]] = {
    "scripted": {"engine": "scripted"},
    "agent": {"engine": "scripted", "tools": [{"python": "support.gadgets"}]},
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_shop() -> AsyncIterator[Workshop]:
    """The workshop of the shared server; tests tell their own executions by the arguments."""
    async with workshop() as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def agents(shared_shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """A real server with the profiles `scripted` and `agent`, which has the tools of support.gadgets."""
    folder = tmp_path_factory.mktemp("agents")
    async with LiveServer(folder, SCRIPTED, environment=shared_shop.environment) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def provider_server(shared_shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Provided]:
    """A real server that asks a real provider API server, in every dialect through a relay of its own."""
    with running_aimock() as aimock:
        async with provided(aimock, tmp_path_factory.mktemp("provided"), shared_shop) as server:
            yield server
