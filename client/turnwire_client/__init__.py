"""The client of turnwire: sessions, inferences and their events, from asyncio.

    async with Client.connect("127.0.0.1:7450") as client:
        session = await client.create_session()
        handle = await client.start_inference(session.session_id, "Why is the sky blue?")
        async for event in handle.events():
            print(event.llm_delta.delta, end="")
        result = await handle.result()

Values are the messages of the contract; their comments in proto/turnwire/v1 say what they mean.

    _client      Client: one channel, and what can be asked of the server
    _sessions    the part of Client about sessions and turns
    _debug       the part of Client about step mode and snapshots
    _engines     the part of Client about engines and profiles
    _handle      InferenceHandle and Result: one inference
    _tools       Required: tool calls that wait for the client, and the loop that answers them
    _watch       EventStream and Cursor: events, exactly once, across cuts
    _continuity  the checks of the seven promises behind it
    _snapshot    what a watcher holds of a snapshot until it is whole
    _transport   the channel, Policy, retries
    _backoff     Clock and Backoff: time and chance, handed in
    _requests    requests, built from what a caller has at hand
    _pages       turns, and the pages that they come in
    _errors      the tree of exceptions; all of them are listed in `errors`
    _status      from a gRPC status to an exception
    output       Output: what a model has said so far, folded from events
    testing      FakeServer, for the tests of your own code
    cli          the command line
"""

import typing

if typing.TYPE_CHECKING:
    from turnwire_client._backoff import Backoff, Clock, SystemClock
    from turnwire_client._client import Client
    from turnwire_client._errors import (
        InferenceCancelledError,
        InferenceFailedError,
        ProtocolError,
        RequestError,
        SessionBusyError,
        SessionDeletedError,
        SessionNotFoundError,
        StreamLostError,
        TurnwireError,
        UnavailableError,
    )
    from turnwire_client._handle import InferenceHandle, Result
    from turnwire_client._tools import Required
    from turnwire_client._transport import Policy
    from turnwire_client._watch import Cursor, EventStream

__all__ = [
    "Backoff",
    "Client",
    "Clock",
    "Cursor",
    "EventStream",
    "InferenceCancelledError",
    "InferenceFailedError",
    "InferenceHandle",
    "Policy",
    "ProtocolError",
    "RequestError",
    "Required",
    "Result",
    "SessionBusyError",
    "SessionDeletedError",
    "SessionNotFoundError",
    "StreamLostError",
    "SystemClock",
    "TurnwireError",
    "UnavailableError",
]

# Loaded when they are first used, so that `turnwire --help` does not wait for gRPC.
_HOMES = {
    "_backoff": ("Backoff", "Clock", "SystemClock"),
    "_client": ("Client",),
    "_handle": ("InferenceHandle", "Result"),
    "_tools": ("Required",),
    "_transport": ("Policy",),
    "_watch": ("Cursor", "EventStream"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((home for home, names in _HOMES.items() if name in names), "_errors")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
