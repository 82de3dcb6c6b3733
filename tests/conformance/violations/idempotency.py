"""Violations of what an idempotency key promises."""

import asyncio
from typing import Any

from violations.exchange import Exchange, Plant, RefusalError, method_of
from violations.kinds import sends, takes
from violations.told import TERMINAL, clears, overlooks, refuses_field, sets
from violations.violation import violation

START = "InferenceService.StartInference"
KEY = "StartInferenceRequest.idempotency_key"
METHOD = "StartInference"

# The rpcs that have a key.
KEYED = ("StartInference", "CreateSession", "ForkSession", "SubmitToolResults")


async def remembers_refusals(exchange: Exchange) -> Any:
    """Take the key of a refused start as used."""
    key = exchange.request.idempotency_key
    if key in exchange.state:
        raise RefusalError.of("IDEMPOTENCY_KEY_REUSED", rpc=METHOD)
    try:
        return await exchange.forward()
    except RefusalError:
        if key:
            exchange.state[key] = True
        raise


async def one_scope(exchange: Exchange) -> Any:
    """Refuse a key that came with another rpc."""
    key = exchange.request.idempotency_key
    if key and exchange.state.setdefault(key, exchange.rpc.name) != exchange.rpc.name:
        raise RefusalError.of("IDEMPOTENCY_KEY_REUSED", rpc=method_of(exchange.rpc))
    return await exchange.forward()


async def as_it_was(exchange: Exchange) -> Any:
    """Answer a repeat with the inference as it was when it was started."""
    key = exchange.request.idempotency_key
    response = await exchange.forward()
    if key:
        first = exchange.state.setdefault(key, response.inference)
        response.inference.CopyFrom(first)
    return response


async def content_is_the_key(exchange: Exchange) -> Any:
    """Take a start without a key for a repeat when its content came before."""
    request = exchange.request
    if request.idempotency_key:
        return await exchange.forward()
    content = request.SerializeToString(deterministic=True)
    async with exchange.state.setdefault("one at a time", asyncio.Lock()):
        if content not in exchange.state:
            exchange.state[content] = await exchange.forward()
            return exchange.state[content]
    again: Any = exchange.rpc.response_class()
    again.CopyFrom(exchange.state[content])
    again.created = False
    return again


async def forgotten_at_the_end(exchange: Exchange) -> Any:
    """Forget a key when its inference has ended."""
    response = await exchange.forward()
    if response.created or response.inference.state not in TERMINAL:
        return response
    exchange.request.idempotency_key = ""
    return await exchange.forward()


async def busy_comes_first(exchange: Exchange) -> Any:
    """Look at the session before the key."""
    request = exchange.request
    if request.session_id and not request.conflict_policy:
        session = (await exchange.ask("GetSession", session_id=request.session_id)).session
        if session.active.inference_id:
            raise RefusalError.of(
                "SESSION_BUSY", session_id=request.session_id, inference_id=session.active.inference_id
            )
    return await exchange.forward()


def with_defaults_left_out(request: Any) -> None:
    """Compare what a request means, and not what was sent."""
    if request.conflict_policy == 1:
        request.conflict_policy = 0


def with_a_short_key(request: Any) -> None:
    """Cut a key that is too long, or leave it out."""
    key = request.idempotency_key
    request.idempotency_key = key[:128] if key.isascii() and key.isprintable() and " " not in key else ""


def drops_the_key(reason: str) -> Plant:
    """Start anew where the key stands in the way."""
    return overlooks(METHOD, clears("idempotency_key"), reason, when=lambda request: bool(request.idempotency_key))


VIOLATIONS = [
    violation(
        "a-repeat-starts-again",
        (KEY, "Names this start, so that a repeat does not start"),
        sends(METHOD, clears("idempotency_key")),
    ),
    violation(
        "a-repeat-is-busy",
        (START, "Idempotent by idempotency_key: a repeat with the same content"),
        takes(METHOD, busy_comes_first),
    ),
    violation(
        "a-repeat-shows-the-past",
        [
            ("StartInferenceResponse.inference", "The inference as it is now."),
            (START, "Idempotent by idempotency_key: a repeat with the same content"),
        ],
        takes(METHOD, as_it_was),
    ),
    violation(
        "a-key-is-forgotten-when-its-inference-has-ended",
        (START, "Idempotent by idempotency_key: a repeat with the same content"),
        takes(METHOD, forgotten_at_the_end),
    ),
    violation(
        "a-refusal-is-recorded",
        (START, "A refusal is not recorded: the key stays free."),
        takes(METHOD, remembers_refusals),
    ),
    violation(
        "defaults-are-not-content",
        (START, "Content is compared as it was sent"),
        sends(METHOD, with_defaults_left_out),
    ),
    violation(
        "other-content-starts-anew",
        (START, "IDEMPOTENCY_KEY_REUSED the key came with other content"),
        drops_the_key("IDEMPOTENCY_KEY_REUSED"),
    ),
    violation(
        "long-keys-are-cut",
        (KEY, "1 to 128 printable ASCII characters."),
        overlooks(METHOD, with_a_short_key),
    ),
    violation(
        "keys-are-short",
        (KEY, "1 to 128 printable ASCII characters."),
        refuses_field(METHOD, "idempotency_key", when=lambda request: len(request.idempotency_key) > 64),
    ),
    violation("content-is-a-key", (KEY, "Empty: no guard."), takes(METHOD, content_is_the_key)),
    violation("keys-are-of-all-rpcs", (KEY, "The scope is the principal and the rpc."), takes(KEYED, one_scope)),
    violation(
        "a-key-is-forgotten-with-its-session",
        ("SessionService.DeleteSession", "Idempotency keys that belong to the session answer"),
        drops_the_key("SESSION_NOT_FOUND"),
    ),
    violation(
        "a-timeout-is-content",
        (START, "Idempotent by idempotency_key: a repeat with the same content"),
        sends(METHOD, lambda request: sets(attempts_max=1 + request.timeout.seconds % 7)(request)),
    ),
]
