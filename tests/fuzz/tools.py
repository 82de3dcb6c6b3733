"""Tools of the server that is fuzzed: they need nothing, and return at once."""

from turnwire_server.tools.function import ToolFailure, tool


@tool(is_idempotent=True)
def get_weather(city: str, days: int = 1) -> str:
    """Say what the weather will be."""
    if not city:
        msg = "there is no weather nowhere"
        raise ToolFailure(msg)
    return f"{days} days of sun"


@tool(approval_required=True)
def erase(path: str) -> int:
    """Erase something, if a person approves."""
    return len(path)
