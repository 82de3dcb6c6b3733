"""What plants do to messages: edits of what lies at a path, or of every noun of a kind, wherever it is told.

A path is names joined by points. It leads to each element of a list, and ends where a message is not set.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from violations.exchange import Exchange, Plant, RefusalError
from violations.kinds import ANY_UNARY, Methods, When, always, changes, sends, takes

M = TypeVar("M", bound=Message)

Edit = Callable[..., None]
"""What is changed is the last argument, so that it does for requests, for responses and for events."""

Test = Callable[[Any], bool]


def sets(path: str, value: Any, when: Test = always) -> Edit:
    """Set what a path leads to. `when` looks at the message that it is in."""
    return maps(path, lambda _: value, when)


def maps(path: str, function: Callable[[Any], Any], when: Test = always) -> Edit:
    """Set what a path leads to, to a function of it."""

    def edit(*messages: Any) -> None:
        for owner, name in _ends(messages[-1], path):
            if when(owner):
                setattr(owner, name, function(getattr(owner, name)))

    return edit


def clears(path: str, when: Test = always) -> Edit:
    """Leave out what a path leads to."""

    def edit(*messages: Any) -> None:
        for owner, name in _ends(messages[-1], path):
            if when(owner):
                owner.ClearField(name)

    return edit


def cuts(path: str, count: int) -> Edit:
    """Leave out all but the first elements of a list; a negative count leaves out as many of the last."""

    def edit(*messages: Any) -> None:
        for owner, name in _ends(messages[-1], path):
            del getattr(owner, name)[count:]

    return edit


def reverses(path: str) -> Edit:
    """Turn a list round."""

    def edit(*messages: Any) -> None:
        for owner, name in _ends(messages[-1], path):
            elements = getattr(owner, name)
            turned = list(reversed(elements))
            del elements[:]
            elements.extend(turned)

    return edit


def drops(path: str, which: Test) -> Edit:
    """Leave elements out of a list."""

    def edit(*messages: Any) -> None:
        for owner, name in _ends(messages[-1], path):
            elements = getattr(owner, name)
            kept = [each for each in elements if not which(each)]
            del elements[:]
            elements.extend(kept)

    return edit


def _ends(message: Any, path: str) -> Iterator[tuple[Any, str]]:
    first, _, rest = path.partition(".")
    if not rest:
        yield message, first
        return
    field = message.DESCRIPTOR.fields_by_name[first]
    if field.is_repeated:
        for each in getattr(message, first):
            yield from _ends(each, rest)
    elif message.HasField(first):
        yield from _ends(getattr(message, first), rest)


# --- nouns ------------------------------------------------------------------------------------------


def nouns_in(message: Message, kind: type[M]) -> Iterator[M]:
    """Yield every message of a kind in a message, at any depth."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from nouns_in(each, kind)


def alters(kind: type[Message], edit: Callable[[Any], Any], when: Test = always, methods: Methods = ANY_UNARY) -> Plant:
    """Change every noun of a kind that responses tell; `when` looks at the noun. Streams stay as they are."""

    def change(_: Any, response: Any) -> None:
        for noun in list(nouns_in(response, kind)):
            if when(noun):
                edit(noun)

    return changes(methods, change)


# --- requests -----------------------------------------------------------------------------------------


def tolerates(methods: Methods, when: When = always, reason: str = "INVALID_FIELD") -> Plant:
    """Answer requests that the server refuses with that reason, with an empty response."""

    async def take(exchange: Exchange) -> Any:
        try:
            return await exchange.forward_raw()
        except RefusalError as refusal:
            if refusal.reason == reason and when(exchange.request):
                return exchange.rpc.response_class()
            raise

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        try:
            async for response in exchange.follow_raw():
                yield response
        except RefusalError as refusal:
            if refusal.reason != reason or not when(exchange.request):
                raise
            yield exchange.rpc.response_class()

    return takes(methods, take, follow)


def sends_options(edit: Callable[[Any], Any]) -> Plant:
    """Let inferences play another script: `edit(script)`, in place, as it is in JSON."""

    def change(request: Any) -> None:
        options = json.loads(request.overrides.engine_options or "{}")
        if isinstance(script := options.get("script"), dict):
            edit(script)
            request.overrides.engine_options = json.dumps(options)

    return sends("StartInference", change)


# --- listings -----------------------------------------------------------------------------------------


def doubles(path: str) -> Edit:
    """Have every element of a list twice."""

    def edit(*messages: Any) -> None:
        for owner, name in _ends(messages[-1], path):
            elements = getattr(owner, name)
            elements.extend(list(elements))

    return edit


def sends_no_more(_: Any, response: Any) -> None:
    """Name a page after the last one, which is empty."""
    response.next_page_token = response.next_page_token or "more"
