"""Makes the tool sources of profiles."""

from collections.abc import Mapping, Sequence

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.profile import ToolSourceUse
from turnwire_server.tools.base import ToolSource
from turnwire_server.tools.python import PythonToolSource

KINDS = ("python", "mcp")


def open_sources(uses: Sequence[ToolSourceUse], environment: Mapping[str, str], clock: Clock) -> list[ToolSource]:
    """Return the sources that a profile names, in its order. Modules are imported now, MCP servers reached later.

    Errors: ValueError; the message says what is wrong, and shows no values of settings.
    """
    return [_open(use, environment, clock) for use in uses]


def _open(use: ToolSourceUse, environment: Mapping[str, str], clock: Clock) -> ToolSource:
    match use.kind:
        case "python":
            return PythonToolSource(use.settings)
        case "mcp":
            try:  # an extra; and it takes a second, which servers without it need not spend
                from turnwire_server.tools.mcp import McpToolSource
            except ImportError as error:
                msg = f"tools of MCP servers need the package mcp; install turnwire[mcp] ({error})"
                raise ValueError(msg) from error
            return McpToolSource(use.settings, environment, clock)
        case _:
            msg = f"there are no tools of the kind {use.kind!r}, only of {' and '.join(KINDS)}"
            raise ValueError(msg)
