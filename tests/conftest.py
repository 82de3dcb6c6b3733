"""Fixtures of all tests."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import structlog
from hypothesis import settings

from support.server import ServerProcess, server_on

# A machine that has other work is slow without anything being wrong: pytest's own timeout is the bound.
settings.register_profile("turnwire", deadline=None)
settings.load_profile("turnwire")


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Log lines with short tracebacks: those with all local variables take seconds on a busy machine."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(scope="session")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server on a SQLite file, shared by tests that keep to sessions of their own."""
    path = tmp_path_factory.mktemp("server") / "turnwire.db"
    with server_on(path, "--heartbeat-seconds", "0.3", "--drain-grace-seconds", "0") as server:
        yield server


@pytest.fixture
def server_address(server_process: ServerProcess) -> str:
    """The address of a real server."""
    return server_process.address


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """Ends, at the end of a test, every server that entered it, however the test ended."""
    with ExitStack() as stack:
        yield stack
