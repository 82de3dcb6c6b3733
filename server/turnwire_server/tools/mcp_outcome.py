"""What comes of a call of an MCP server: a result as JSON text, or a ToolFailure."""

import json

from mcp import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, TextContent

from turnwire_server.tools.base import ToolFailure
from turnwire_server.tools.mcp_connection import CallLost, Unreachable
from turnwire_server.tools.mcp_settings import Secrets


def to_text(result: CallToolResult) -> str:
    """Return a result as JSON text: the structured content if there is one, else the text, else all contents.

    Errors: ToolFailure when it says that it is an error.
    """
    text = _text(result)
    if result.is_error:
        raise ToolFailure(text or "the tool failed and does not say why")
    if result.structured_content is not None:
        return _json(result.structured_content)
    if text is not None:
        return _json(text)
    return _json([content.model_dump(mode="json", by_alias=True, exclude_none=True) for content in result.content])


def to_failure(error: Exception, server: str, secrets: Secrets) -> ToolFailure:
    """Return an error of a call as a ToolFailure, without secrets."""
    said = secrets.mask(str(error))
    match error:
        case ToolFailure():
            return ToolFailure(secrets.mask(error.message), error.code, may_repeat=error.may_repeat)
        case Unreachable():
            return ToolFailure(f"the MCP server {server} is unavailable: {said}", "unavailable", may_repeat=True)
        case CallLost():
            msg = f"the MCP server {server} was lost during the call; what the tool did is not known"
            return ToolFailure(msg, "unknown_outcome")
        case MCPError() if error.code == INVALID_PARAMS:
            return ToolFailure(said, "invalid_args")
        case MCPError():
            return ToolFailure(said or "the MCP server failed")
        case _:  # the library refuses the result
            return ToolFailure("the tool crashed (its result is not what the server promised)", "crashed")


def _text(result: CallToolResult) -> str | None:
    texts = [content.text for content in result.content if isinstance(content, TextContent)]
    return "\n".join(texts) if len(texts) == len(result.content) else None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
