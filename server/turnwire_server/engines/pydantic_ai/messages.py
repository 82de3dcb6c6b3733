"""Blocks to pydantic-ai's messages, in an order that every provider accepts."""

import json
import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, cast
from urllib.parse import urlsplit

from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UploadedFile,
    UserContent,
    UserPromptPart,
)

from turnwire_server.domain.tool import ToolCall, ToolError, ToolUse
from turnwire_server.domain.turn import Block, BlockStatus, Image, LlmText, Reasoning, System, User
from turnwire_server.engines.pydantic_ai.options import Dialect
from turnwire_server.engines.pydantic_ai.output import REDACTED_THINKING

# The fields in which chat servers send reasoning, and take it back.
_CHAT_REASONING_FIELDS = frozenset({"reasoning", "reasoning_content"})

# Whose file storage the names of provider files belong to.
_FILES: Mapping[Dialect, Literal["anthropic", "google", "openai"]] = {
    Dialect.OPENAI_CHAT: "openai",
    Dialect.OPENAI_RESPONSES: "openai",
    Dialect.ANTHROPIC: "anthropic",
    Dialect.GOOGLE: "google",
}

# The dialects that can be told how closely to look at an image.
_WITH_DETAIL = frozenset({Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES})

_UNKNOWN_OUTCOME = ToolError("the outcome of this call is unknown", "unknown_outcome")


def to_messages(blocks: Iterable[Block], dialect: Dialect, system: str) -> list[ModelMessage]:
    """Return the messages that say what `blocks` say; `system` is pydantic-ai's name of the provider.

    A tool's outcome stands directly behind the message with its call, wherever its block was; a call without one gets
    an error. Left out: blocks of kind other, empty text, calls and reasoning that are INCOMPLETE, and reasoning that
    another provider made.
    """
    turn = tuple(blocks)
    outcomes = _outcomes(turn)
    names = _unique_names(turn)
    messages: list[ModelMessage] = []
    request: list[ModelRequestPart] = []
    response: list[ModelResponsePart] = []

    def close_request() -> None:
        if request:
            messages.append(ModelRequest(parts=list(request)))
            request.clear()

    def close_response() -> None:
        # Reasoning that nothing follows was cut off; OpenAI refuses it.
        while response and isinstance(response[-1], ThinkingPart):
            response.pop()
        if not response:
            return
        close_request()
        calls = [part for part in response if isinstance(part, ToolCallPart)]
        messages.append(ModelResponse(parts=list(response), provider_name=system))
        request.extend(_tool_return(part, returns[part.tool_call_id], dialect) for part in calls)
        response.clear()

    returns: dict[str, str | ToolError] = {}
    for position, block in enumerate(turn):
        match block.kind:
            case LlmText() | Reasoning() | ToolCall():
                if (part := _response_part(block, dialect, system, names.get(position, ""))) is not None:
                    response.append(part)
                    if isinstance(part, ToolCallPart):
                        returns[part.tool_call_id] = outcomes.get(position, _UNKNOWN_OUTCOME)
            case ToolUse():
                close_response()
            case User() | System():
                close_response()
                request.extend(_request_parts(block.kind, dialect))
            case _:
                pass
    close_response()
    close_request()
    return messages


def _outcomes(turn: tuple[Block, ...]) -> Mapping[int, str | ToolError]:
    """Return the outcome of the call at each position. Ids name calls within one inference, so they may come again."""
    waiting: dict[str, int] = {}
    outcomes: dict[int, str | ToolError] = {}
    for position, block in enumerate(turn):
        match block.kind:
            case ToolCall(id=identity):
                waiting[identity] = position
            case ToolUse(tool_call=identity, outcome=outcome) if identity in waiting:
                outcomes[waiting.pop(identity)] = outcome
            case _:
                pass
    return outcomes


def _unique_names(turn: tuple[Block, ...]) -> Mapping[int, str]:
    """Return an id for the call at each position that no other call of the request has: Anthropic insists."""
    seen: dict[str, int] = {}
    names: dict[int, str] = {}
    for position, block in enumerate(turn):
        if isinstance(block.kind, ToolCall):
            identity = block.kind.id
            seen[identity] = seen.get(identity, 0) + 1
            names[position] = identity if seen[identity] == 1 else f"{identity}_{seen[identity]}"
    return names


def _response_part(block: Block, dialect: Dialect, system: str, name: str) -> ModelResponsePart | None:
    whole = block.status is BlockStatus.COMPLETE
    match block.kind:
        case LlmText(text=text) if text:
            return TextPart(text)
        case Reasoning() if whole:
            return _thinking(block.kind, dialect, system)
        case ToolCall() if whole:
            return ToolCallPart(block.kind.name, _json_object(block.kind.args), tool_call_id=name)
        case _:
            return None


def _thinking(reasoning: Reasoning, dialect: Dialect, system: str) -> ThinkingPart | None:
    """Return reasoning of this provider. Its fields tell which provider made it: see Output, which fills them."""
    item, sealed, signature = reasoning.item, reasoning.encrypted_content, reasoning.signature
    match dialect:
        case Dialect.ANTHROPIC if item == REDACTED_THINKING and sealed:
            return ThinkingPart("", id=REDACTED_THINKING, signature=sealed, provider_name=system)
        case Dialect.ANTHROPIC if signature and not item:
            return ThinkingPart(reasoning.text, signature=signature, provider_name=system)
        case Dialect.GOOGLE if sealed and not item:
            return ThinkingPart(reasoning.text, signature=sealed, provider_name=system)
        case Dialect.OPENAI_RESPONSES if sealed and item and item != REDACTED_THINKING:
            return ThinkingPart(reasoning.text, id=item, signature=sealed, provider_name=system)
        case Dialect.OPENAI_CHAT if item in _CHAT_REASONING_FIELDS and reasoning.text:
            return ThinkingPart(reasoning.text, id=item, provider_name=system)
        case _:
            return None


def _request_parts(kind: User | System, dialect: Dialect) -> Iterator[ModelRequestPart]:
    if isinstance(kind, System):
        if kind.text:
            yield SystemPromptPart(kind.text)
        return
    content: list[UserContent] = [kind.text] if kind.text else []
    content.extend(_image(image, dialect) for image in kind.images)
    if content:
        yield UserPromptPart(kind.text if not kind.images else content)


def _image(image: Image, dialect: Dialect) -> UserContent:
    """Return an image. It is the provider that reads a URL, never this server: clients must not send it anywhere.

    For OpenAI chat a file is refused. `detail` is left out where a dialect has no word for it.
    """
    detail = {"detail": image.detail} if image.detail and dialect in _WITH_DETAIL else None
    if image.content:
        return BinaryContent(image.content, media_type=image.media_type, vendor_metadata=detail)
    media_type = image.media_type or _guessed_media_type(image.url or image.file)
    if image.url and dialect is not Dialect.GOOGLE:
        return ImageUrl(image.url, media_type=media_type, vendor_metadata=detail)
    # Gemini takes URLs and files in the same place; pydantic-ai would download a URL.
    name = image.url or image.file
    return UploadedFile(name, provider_name=_FILES[dialect], media_type=media_type, vendor_metadata=detail)


def _guessed_media_type(name: str) -> str:
    """Return what an image may be that nobody says more of; as something else than an image it would be a document."""
    guessed = mimetypes.guess_type(urlsplit(name).path)[0] or ""
    return guessed if guessed.startswith("image/") else "image/png"


def _tool_return(call: ToolCallPart, outcome: str | ToolError, dialect: Dialect) -> ToolReturnPart:
    if isinstance(outcome, ToolError):
        said = f"{outcome.code}: {outcome.message}" if outcome.code and outcome.message else outcome.message
        return ToolReturnPart(
            call.tool_name, said or outcome.code or "failed", tool_call_id=call.tool_call_id, outcome="failed"
        )
    return ToolReturnPart(call.tool_name, _result(outcome, dialect), tool_call_id=call.tool_call_id)


def _result(result: str, dialect: Dialect) -> object:
    """Return a result as providers want it: text as itself, an object as an object for Gemini, else its JSON text."""
    try:
        value: object = json.loads(result) if result else ""
    except ValueError:
        return result
    if isinstance(value, str) or (isinstance(value, dict) and dialect is Dialect.GOOGLE):
        return cast("object", value)
    return result


def _json_object(args: str) -> str:
    """Return arguments that SDKs can parse: those that a model left unfinished cannot be sent back."""
    try:
        return args if isinstance(json.loads(args or "{}"), dict) and args else "{}"
    except ValueError:
        return "{}"
