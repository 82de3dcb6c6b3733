"""Violations of what a start takes, and of what its fields do."""

import json
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from violations.exchange import Exchange, RefusalError
from violations.kinds import changes, refuses, sends, takes
from violations.told import clears, overlooks, sets, tells, tells_turns
from violations.violation import violation

START = "InferenceService.StartInference"
REQUEST = "StartInferenceRequest"
METHOD = "StartInference"


async def late(exchange: Exchange) -> Any:
    """Know nothing of an inference when it is asked for the first time."""
    name = exchange.request.inference_id
    if name not in exchange.state:
        exchange.state[name] = True
        raise RefusalError.of("INFERENCE_NOT_FOUND", inference_id=name)
    return await exchange.forward()


async def session_before(exchange: Exchange) -> Any:
    """Create the session first, and start in it then: a start that is refused leaves it behind."""
    request = exchange.request
    if request.HasField("new_session"):
        made = await exchange.ask("CreateSession", session=request.new_session)
        request.session_id = made.session.session_id
    return await exchange.forward()


async def cancelled_before(exchange: Exchange) -> Any:
    """Cancel what is displaced before it is known whether the start is accepted."""
    request = exchange.request
    if request.conflict_policy >= 3:
        await exchange.ask("Cancel", session_id=request.session_id)
    return await exchange.forward()


async def failures_are_statuses(exchange: Exchange) -> Any:
    """Refuse a start whose inference fails at once."""
    response = await exchange.forward()
    if exchange.request.overrides.engine_options:
        timeout = Duration(nanos=200_000_000)
        reached = await exchange.ask("Wait", inference_id=response.inference.inference_id, timeout=timeout)
        if reached.inference.HasField("error"):
            raise RefusalError("FAILED_PRECONDITION", reason="")
    return response


async def overrides_stay(exchange: Exchange) -> Any:
    """Keep what one start changes of its profile for those that follow."""
    request = exchange.request
    before = exchange.state.get(request.session_id)
    if before and not request.HasField("overrides"):
        request.overrides.CopyFrom(before)
    elif request.HasField("overrides"):
        exchange.state[request.session_id] = request.overrides
    return await exchange.forward()


def shortest(field: str) -> Callable[[Any], None]:
    """Keep of a map what is small."""

    def edit(request: Any) -> None:
        entries = getattr(request, field)
        for key in [key for key, value in entries.items() if len(value) > 1000]:
            del entries[key]

    return edit


def is_beyond(field: str, most: int) -> Callable[[Any], bool]:
    """Whether a map has a value of more bytes."""
    return lambda request: any(len(value) > most for value in getattr(request, field).values())


def with_json(request: Any) -> None:
    """Take what is no JSON as a string of it."""
    for entries in (request.metadata, request.data):
        for key, value in list(entries.items()):
            try:
                json.loads(value)
            except ValueError:
                entries[key] = json.dumps(value)


def with_versions(request: Any) -> None:
    """Give keys a version that have none."""
    for entries in (request.metadata, request.data):
        for key, value in list(entries.items()):
            if not re.fullmatch(r"[a-z0-9_]+[.][a-z0-9_]+@v[1-9][0-9]*", key):
                del entries[key]
                entries[key.partition("@")[0] + "@v1"] = value


def named(request: Any) -> None:
    """Name a session that the client did not name."""
    request.new_session.session_id = f"session-of-{id(request)}"


VIOLATIONS = [
    violation(
        "start-is-answered-before-it-can-be-read",
        (START, "Starts an inference, and returns once it is durable."),
        takes("GetInference", late),
    ),
    violation(
        "start-makes-its-session-first",
        [
            (START, "It is accepted or refused as a whole; after acceptance it always reaches"),
            (f"{REQUEST}.new_session", "A session to create, in the same transaction."),
        ],
        takes(METHOD, session_before),
    ),
    violation(
        "start-displaces-before-it-is-accepted",
        (START, "It is accepted or refused as a whole; after acceptance it always reaches"),
        takes(METHOD, cancelled_before),
    ),
    violation(
        "a-failure-is-a-status",
        (START, "It is accepted or refused as a whole; after acceptance it always reaches"),
        takes(METHOD, failures_are_statuses),
    ),
    violation(
        "a-failure-has-a-reason-of-requests",
        ("Error.reason", "Where it tells why an inference ended, it is one from 100 on."),
        tells(lambda inference: sets(reason=62)(inference.error), which=lambda inference: inference.HasField("error")),
    ),
    violation(
        "a-failure-has-no-metadata",
        ("Error.metadata", "The metadata that the catalogue lists for the reason."),
        tells(lambda inference: clears("metadata")(inference.error), lambda inference: inference.HasField("error")),
    ),
    violation(
        "a-session-is-not-named-by-a-uuid",
        ("NewSession.session_id", "Empty: the server mints a UUIDv7."),
        sends(METHOD, named, when=lambda request: not request.session_id and not request.new_session.session_id),
    ),
    violation(
        "input-beyond-1000-blocks-is-cut",
        (f"{REQUEST}.input", "The blocks to add to the parent turn, at most 1,000."),
        overlooks(METHOD, lambda request: request.input.__delitem__(slice(1000, None))),
    ),
    violation(
        "input-is-added-backwards",
        (f"{REQUEST}.input", "The blocks to add to the parent turn, at most 1,000."),
        sends(METHOD, lambda request: request.input.reverse()),
    ),
    violation(
        "nothing-is-regenerated",
        (f"{REQUEST}.input", "None: the model continues from the parent (regenerate)."),
        refuses(METHOD, "EMPTY_TURN", when=lambda request: not request.input),
    ),
    violation(
        "parent-is-always-the-turn-before",
        (f"{REQUEST}.parent", "The index of the turn to build on"),
        sends(METHOD, clears("parent"), when=lambda request: not request.conflict_policy),
    ),
    violation(
        "parent-is-chosen-at-the-start",
        (f"{REQUEST}.parent", "Not set: the turn before; it is chosen when"),
        tells_turns(clears("parent")),
    ),
    violation(
        "an-open-parent-is-taken",
        (f"{REQUEST}.parent", "The turn MUST be CLOSED."),
        overlooks(METHOD, clears("parent"), "TURN_NOT_CLOSED"),
    ),
    violation(
        "the-profile-of-the-session-is-unknown",
        [
            (f"{REQUEST}.profile", "Empty: the session's, or the server's default."),
            ("Session.profile", "The profile that an inference of this session uses"),
        ],
        refuses(METHOD, "PROFILE_NOT_FOUND", when=lambda request: not request.profile),
    ),
    violation(
        "overrides-stay",
        (f"{REQUEST}.overrides", "Changes to the profile, for this inference only."),
        takes(METHOD, overrides_stay),
    ),
    violation(
        "attempts-out-of-range-are-taken",
        (f"{REQUEST}.attempts_max", "How many attempts may be made when a server process is lost"),
        overlooks(METHOD, clears("attempts_max")),
    ),
    violation(
        "attempts-are-3-by-default",
        (f"{REQUEST}.attempts_max", "Not set: 1, so a lost attempt"),
        sends(METHOD, sets(attempts_max=3), when=lambda request: not request.HasField("attempts_max")),
    ),
    violation(
        "metadata-is-lost",
        (f"{REQUEST}.metadata", "Metadata of the turn; see Turn.metadata."),
        sends(METHOD, clears("metadata")),
    ),
    violation(
        "metadata-that-is-too-large-is-left-out",
        (f"{REQUEST}.metadata", "At most 64 entries of 64 KiB, and 256 KiB in all"),
        overlooks(METHOD, shortest("metadata")),
    ),
    violation(
        "data-is-not-laid-over-the-parents",
        [
            (f"{REQUEST}.data", "Data of the turn, laid over what the parent carries"),
            ("Turn.data", "It is carried from parent to child, without"),
        ],
        tells_turns(clears("data"), which=lambda turn: turn.HasField("parent")),
    ),
    violation(
        "data-meant-for-one-turn-is-carried",
        ("Turn.data", "It is carried from parent to child, without"),
        tells_turns(
            lambda turn: turn.data.update({"geppetto.tool_config@v1": "1", "geppetto.tool_definitions@v1": "1"}),
            which=lambda turn: turn.HasField("parent"),
        ),
    ),
    violation(
        "values-of-data-that-are-too-large-are-left-out",
        (f"{REQUEST}.data", "At most 64 entries of 64 KiB."),
        overlooks(METHOD, shortest("data"), when=is_beyond("data", 65536)),
    ),
    violation(
        "data-that-is-too-large-in-all-is-left-out",
        (f"{REQUEST}.data", "With what the parent carries, they are at most 256 KiB"),
        overlooks(METHOD, shortest("data"), when=lambda request: not is_beyond("data", 65536)(request)),
    ),
    violation(
        "maps-hold-anything",
        ("Turn.metadata", "Facts about the turn; each value is one JSON text."),
        overlooks(METHOD, with_json),
    ),
    violation(
        "keys-need-no-version",
        ("Turn.metadata", "Keys are `namespace.value@vN`"),
        overlooks(METHOD, with_versions),
    ),
    violation(
        "without-a-target-a-session-is-made",
        (f"{REQUEST}.target", "Exactly one is set."),
        overlooks(
            METHOD,
            lambda request: request.new_session.SetInParent(),
            when=lambda request: not request.WhichOneof("target"),
        ),
    ),
    violation(
        "everything-is-told-as-created",
        ("StartInferenceResponse.created", "Whether this request created it"),
        changes(METHOD, lambda _, response: sets(created=True)(response)),
    ),
]
