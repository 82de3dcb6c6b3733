"""The common kinds of plants for rpcs with one response. Those for streams are in violations.streams.

`methods` is a method of the contract (`"Cancel"`), several, or ANY. Requests and responses are messages; an `edit`
changes them in place, or returns what takes their place. `when` looks at the request, and says of which calls it is.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import Any

from violations.exchange import METHODS, UNARY, Exchange, Follow, Plant, RefusalError, Take

ANY: Sequence[str] = METHODS
"""Every rpc."""

ANY_UNARY: Sequence[str] = UNARY
"""Every rpc with one response."""

Methods = str | Sequence[str]
When = Callable[[Any], bool]


def always(_: Any) -> bool:
    """Of every call."""
    return True


def takes(methods: Methods, take: Take, follow: Follow | None = None) -> Plant:
    """Take calls over: a function from an Exchange to the response; it MAY raise a RefusalError."""
    named = frozenset([methods] if isinstance(methods, str) else methods)
    return Plant(named, take) if follow is None else Plant(named, take, follow)


# --- what the server answers ----------------------------------------------------------------------


def changes(methods: Methods, edit: Callable[[Any, Any], Any], when: When = always) -> Plant:
    """Change responses: `edit(request, response)`."""

    async def take(exchange: Exchange) -> Any:
        request = copy.deepcopy(exchange.request)
        response = await exchange.forward()
        if not when(request):
            return response
        changed = edit(request, response)
        return response if changed is None else changed

    return takes(methods, take)


def answers(methods: Methods, make: Callable[[Any], Any] | None = None, when: When = always) -> Plant:
    """Answer without asking the server: `make(request)`, or with an empty response."""

    async def take(exchange: Exchange) -> Any:
        if not when(exchange.request):
            return await exchange.forward_raw()
        return make(exchange.request) if make else exchange.rpc.response_class()

    return takes(methods, take)


def freezes(methods: Methods, key: Callable[[Any], Hashable], when: When = always) -> Plant:
    """Answer each request of the same key as the first one was."""

    async def take(exchange: Exchange) -> Any:
        if not when(exchange.request):
            return await exchange.forward_raw()
        name = (exchange.rpc.name, key(exchange.request))
        if name not in exchange.state:
            exchange.state[name] = await exchange.forward_raw()
        return exchange.state[name]

    return takes(methods, take)


# --- what the server is asked ---------------------------------------------------------------------


def sends(methods: Methods, edit: Callable[[Any], Any], when: When = always) -> Plant:
    """Ask the server something else: `edit(request)`, such as a start without its key."""

    def changed(exchange: Exchange) -> Exchange:
        if when(exchange.request):
            other = edit(exchange.request)
            if other is not None:
                exchange.request.CopyFrom(other)
        return exchange

    async def take(exchange: Exchange) -> Any:
        return await changed(exchange).forward_raw()

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        async for response in changed(exchange).follow_raw():
            yield response

    return takes(methods, take, follow)


def sends_after(methods: Methods, method: str, make: Callable[[Any, Any], dict[str, Any] | None]) -> Plant:
    """Do something else as well, after the server has answered: `make(request, response)` are the fields of a request.

    What the server refuses of it is not told. None: nothing is done.
    """

    async def take(exchange: Exchange) -> Any:
        request = copy.deepcopy(exchange.request)
        response = await exchange.forward()
        fields = make(request, response)
        if fields is not None:
            try:
                await exchange.ask(method, **fields)
            except RefusalError:
                return response
        return response

    return takes(methods, take)


# --- how it refuses -------------------------------------------------------------------------------


def refuses(methods: Methods, reason: str, when: When = always, **metadata: str) -> Plant:
    """Refuse without asking the server, as the catalogue says it of that reason."""

    async def take(exchange: Exchange) -> Any:
        if when(exchange.request):
            raise RefusalError.of(reason, **metadata)
        return await exchange.forward_raw()

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        if when(exchange.request):
            raise RefusalError.of(reason, **metadata)
        async for response in exchange.follow_raw():
            yield response

    return takes(methods, take, follow)


def forgets(methods: Methods, reason: str, key: Callable[[Any], Hashable], after: int = 1) -> Plant:
    """Refuse what has the same key as `after` calls before."""

    async def take(exchange: Exchange) -> Any:
        name = ("forgets", key(exchange.request))
        exchange.state[name] = exchange.state.get(name, 0) + 1
        if exchange.state[name] > after:
            raise RefusalError.of(reason)
        return await exchange.forward_raw()

    return takes(methods, take)


def changes_refusal(methods: Methods, reason: str, edit: Callable[[RefusalError], Any]) -> Plant:
    """Refuse otherwise where the server refuses with that reason: change the RefusalError, or return another one."""

    def changed(refusal: RefusalError) -> RefusalError:
        return (edit(refusal) or refusal) if refusal.reason == reason else refusal

    async def take(exchange: Exchange) -> Any:
        try:
            return await exchange.forward_raw()
        except RefusalError as refusal:
            raise changed(refusal) from None

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        try:
            async for response in exchange.follow_raw():
                yield response
        except RefusalError as refusal:
            raise changed(refusal) from None

    return takes(methods, take, follow)


def refuses_otherwise(methods: Methods, reason: str, instead: str, **metadata: str) -> Plant:
    """Refuse with another reason where the server refuses with that one."""
    return changes_refusal(methods, reason, lambda _: RefusalError.of(instead, **metadata))


def accepts(methods: Methods, reason: str, make: Callable[[Any], Any] | None = None) -> Plant:
    """Answer where the server refuses with that reason: `make(request)`, or with an empty response."""

    async def take(exchange: Exchange) -> Any:
        try:
            return await exchange.forward_raw()
        except RefusalError as refusal:
            if refusal.reason != reason:
                raise
            return make(exchange.request) if make else exchange.rpc.response_class()

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        try:
            async for response in exchange.follow_raw():
                yield response
        except RefusalError as refusal:
            if refusal.reason != reason:
                raise
            yield make(exchange.request) if make else exchange.rpc.response_class()

    return takes(methods, take, follow)


# --- when -----------------------------------------------------------------------------------------


def delays(methods: Methods, seconds: float, when: When = always) -> Plant:
    """Answer later; the server is asked at once."""

    async def take(exchange: Exchange) -> Any:
        is_meant = when(exchange.request)
        response = await exchange.forward_raw()
        if is_meant:
            await asyncio.sleep(seconds)
        return response

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        if when(exchange.request):
            await asyncio.sleep(seconds)
        async for response in exchange.follow_raw():
            yield response

    return takes(methods, take, follow)


def never_answers(methods: Methods, when: When = always) -> Plant:
    """Say nothing, however long the client waits."""

    async def take(exchange: Exchange) -> Any:
        if when(exchange.request):
            await asyncio.Event().wait()
        return await exchange.forward_raw()

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        if when(exchange.request):
            await asyncio.Event().wait()
        async for response in exchange.follow_raw():
            yield response

    return takes(methods, take, follow)
