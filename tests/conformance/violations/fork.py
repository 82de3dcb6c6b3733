"""Violations of what the contract says of forks."""

from typing import Any

from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.turn_pb2 import Turn
from violations.edits import alters, clears, maps, sets, tolerates
from violations.exchange import Exchange, RefusalError
from violations.kinds import changes, sends, takes
from violations.violation import violation

FORK = "SessionService.ForkSession"


async def fork_dies_with_its_origin(exchange: Exchange) -> Any:
    """Delete the forks of what is deleted."""
    deleted = exchange.request.session_id
    response = await exchange.forward()
    for session in (await exchange.ask("ListSessions", page_size=1000)).sessions:
        if session.origin.session_id == deleted:
            await exchange.ask("DeleteSession", session_id=session.session_id, force=True)
    return response


async def inferences_of_the_origin(exchange: Exchange) -> Any:
    """List the inferences of a fork's origin as those of the fork."""
    request = exchange.request
    session = (await exchange.ask("GetSession", session_id=request.session_id)).session
    if session.HasField("origin") and not session.head_sequence:
        request.session_id = session.origin.session_id
    return await exchange.forward()


async def turns_keep_the_session_of_the_origin(exchange: Exchange) -> Any:
    """Tell the origin's session of the turns of a fork."""
    session_id = exchange.request.at.session_id
    response = await exchange.forward()
    if session_id:
        session = (await exchange.ask("GetSession", session_id=session_id)).session
        if session.HasField("origin"):
            response.turn.session_id = session.origin.session_id
    return response


async def fork_has_the_configuration_of_its_origin(exchange: Exchange) -> Any:
    """Give a fork what its origin has."""
    request = exchange.request
    try:
        origin = (await exchange.ask("GetSession", session_id=request.session_id)).session
    except RefusalError:
        return await exchange.forward()
    if not request.session.HasField("config") and origin.HasField("config"):
        request.session.config.CopyFrom(origin.config)
    return await exchange.forward()


def all_that_is_there(request: Any) -> None:
    """Share all turns, whatever index is named."""
    if request.HasField("index"):
        request.ClearField("index")


VIOLATIONS = [
    violation(
        "forks-go-with-their-origin",
        [
            (FORK, "Nothing is copied; deleting the origin does not change the fork."),
            ("SessionOrigin.session_id", "It MAY have been deleted since."),
        ],
        takes("DeleteSession", fork_dies_with_its_origin),
    ),
    violation(
        "forks-have-the-inferences-of-their-origin",
        (FORK, "The log of the fork begins empty"),
        takes("ListInferences", inferences_of_the_origin),
    ),
    violation(
        "shared-turns-stay-of-the-origin",
        (FORK, "The shared turns keep their index, their id and their inference_id"),
        takes("GetTurn", turns_keep_the_session_of_the_origin),
    ),
    violation(
        "forks-have-the-configuration-of-their-origin",
        [
            (FORK, "The profile and the configuration are those of `session`"),
            ("ForkSessionRequest.session", "Absent: all defaults."),
        ],
        takes("ForkSession", fork_has_the_configuration_of_its_origin),
    ),
    violation(
        "what-is-said-of-a-fork-is-lost",
        ("ForkSessionRequest.session", "The new session."),
        sends(
            "ForkSession", lambda request: request.session.CopyFrom(NewSession(session_id=request.session.session_id))
        ),
    ),
    violation(
        "forks-forget-their-key",
        (FORK, "Idempotent by idempotency_key, as CreateSession is."),
        sends("ForkSession", clears("idempotency_key")),
    ),
    violation(
        "repeated-forks-are-told-as-created",
        ("ForkSessionResponse.created", "Whether this request created it"),
        changes("ForkSession", sets("created", value=True)),
    ),
    violation(
        "fork-points-are-not-looked-at",
        ("ForkSessionRequest.index", "The index of the last turn to share."),
        sends("ForkSession", all_that_is_there),
    ),
    violation(
        "forks-share-the-first-turn-only",
        ("ForkSessionRequest.index", "Not set: the newest one such that all up to it are CLOSED."),
        sends("ForkSession", sets("index", 0), lambda request: not request.HasField("index")),
    ),
    violation(
        "forks-do-not-tell-where-they-come-from",
        ("Session.origin", "Where the session was forked from."),
        changes(("ForkSession", "GetSession"), clears("session.origin")),
    ),
    violation(
        "forks-tell-another-fork-point",
        ("SessionOrigin.index", "The index of the last turn that the fork shares"),
        changes("ForkSession", maps("session.origin.index", lambda index: index + 1)),
    ),
    violation(
        "keys-of-forks-may-be-anything",
        ("ForkSessionRequest.idempotency_key", "As in CreateSessionRequest."),
        tolerates("ForkSession", lambda request: bool(request.idempotency_key)),
    ),
    violation(
        "forks-count-on-from-their-origin",
        ("Turn.index", "The position of the turn in its session"),
        alters(Turn, maps("index", lambda index: index + 1), methods="Wait"),
    ),
]
