"""Violations of the sizes that the contract sets."""

import copy
from collections.abc import Callable
from typing import Any

from violations.exchange import Exchange
from violations.kinds import accepts, refuses, sends, takes
from violations.streams import changes_events, is_a
from violations.told import tells
from violations.violation import violation

SERVICE = "InferenceService"
SIZES = "Sizes: a request is at most 4 MiB, an event at most 256 KiB"
EVENT = ("Event", "Its encoded form is at most 256 KiB.")
TOO_LARGE = 400_000


def whole(elements: str) -> Callable[[Exchange], Any]:
    """Answer with all pages at once."""

    async def take(exchange: Exchange) -> Any:
        response = await exchange.forward()
        answer = copy.deepcopy(response)
        while response.next_page_token:
            exchange.request.page_token = response.next_page_token
            response = await exchange.forward()
            _list_of(answer, elements).extend(_list_of(response, elements))
        answer.next_page_token = ""
        return answer

    return take


def _list_of(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
    return message


async def turns_as_a_whole(exchange: Exchange) -> Any:
    """List turns with all of their blocks, on one page."""
    answer = await whole("turns")(exchange)
    for turn in answer.turns:
        if exchange.request.view < 2:
            continue
        del turn.blocks[:]
        token = ""
        while True:
            fields = {"inference_id": turn.inference_id, "view": exchange.request.view, "page_token": token}
            page = await exchange.ask("GetTurn", **fields)
            turn.blocks.extend(page.turn.blocks)
            token = page.next_page_token
            if not token:
                break
    return answer


def with_the_text(event: Any) -> None:
    """Have a text in the event that does not fit in it."""
    final = event.llm_final
    if final.text_omitted:
        final.text = "x" * final.text_bytes
        final.text_omitted = False


def without_the_text(event: Any) -> None:
    """Leave a text out that fits."""
    event.llm_final.text = ""
    event.llm_final.text_omitted = True


def with_the_arguments(event: Any) -> None:
    """Have arguments in the event that do not fit in it."""
    if event.tool_call.args_omitted:
        event.tool_call.call.args = "x" * TOO_LARGE
        event.tool_call.args_omitted = False


def with_the_result(event: Any) -> None:
    """Have a result in the event that does not fit in it."""
    if event.tool_result.result_omitted:
        event.tool_result.use.result = "x" * TOO_LARGE
        event.tool_result.result_omitted = False


def as_if_it_fitted(inference: Any) -> None:
    """Tell of a success where the output was too large."""
    inference.state = 5
    inference.finish_class = 1
    inference.ClearField("error")


def with_more_output(request: Any) -> None:
    """Let the engine say more than a block may have, where it was to say just as much."""
    options = request.overrides.engine_options
    request.overrides.engine_options = options.replace('"repeat": 131072', '"repeat": 131073')


def is_large(request: Any) -> bool:
    """Whether a request has more than 3 MiB."""
    return bool(request.ByteSize() > 3 * 1024 * 1024)


VIOLATIONS = [
    violation("large-requests-are-served", (SERVICE, SIZES), accepts(["Wait", "Cancel"], "REQUEST_TOO_LARGE")),
    violation(
        "requests-have-at-most-3-mib",
        (SERVICE, SIZES),
        refuses("StartInference", "REQUEST_TOO_LARGE", when=is_large),
    ),
    violation(
        "events-have-their-text-whatever-its-size",
        [EVENT, ("LlmFinal.text_omitted", "Set when the event would be larger than 256 KiB with the text")],
        changes_events(with_the_text, is_a("llm_final")),
    ),
    violation(
        "events-never-have-their-text",
        [
            ("LlmFinal.text_omitted", "Set when the event would be larger than 256 KiB with the text"),
            ("LlmFinal.text", "The complete text, unless `text_omitted` is set."),
        ],
        changes_events(without_the_text, is_a("llm_final")),
    ),
    violation(
        "deltas-have-more-than-128-kib",
        ("LlmDelta.delta", "The piece: whole code points only, never empty, at most 128 KiB."),
        changes_events(
            lambda event: setattr(event.llm_delta, "delta", event.llm_delta.delta * 2),
            which=lambda event: len(event.llm_delta.delta) > 20_000,
        ),
    ),
    violation(
        "events-have-their-arguments-whatever-their-size",
        ("ToolCallCompleted.args_omitted", "Set when the event would be larger than 256 KiB with the arguments."),
        changes_events(with_the_arguments, is_a("tool_call")),
    ),
    violation(
        "events-have-their-result-whatever-its-size",
        ("ToolResult.result_omitted", "Set when the event would be larger than 256 KiB with the outcome."),
        changes_events(with_the_result, is_a("tool_result")),
    ),
    violation(
        "too-much-output-is-a-success",
        ("LlmTextBlock.text", "The text, at most 2 MiB."),
        tells(as_if_it_fitted, which=lambda inference: inference.error.reason == 111),
    ),
    violation(
        "as-much-output-as-there-may-be-is-too-much",
        ("LlmTextBlock.text", "The text, at most 2 MiB."),
        sends("StartInference", with_more_output),
    ),
    violation(
        "a-page-of-events-has-all-of-them",
        (SERVICE, SIZES),
        takes("ListEvents", whole("events")),
    ),
    violation(
        "a-page-of-blocks-has-all-of-them",
        ("SessionService.GetTurn", "A response aims at 1 MiB and has at least one block"),
        takes("GetTurn", whole("turn.blocks")),
    ),
    violation(
        "a-listing-of-turns-has-all-blocks",
        ("SessionService.ListTurns", "In the views DELTA and FULL the size of a response is bounded"),
        takes("ListTurns", turns_as_a_whole),
    ),
    violation(
        "a-page-of-sessions-has-all-of-them",
        ("ListSessionsRequest.page_size", "A response MAY have fewer, for its size."),
        takes("ListSessions", whole("sessions")),
    ),
]
