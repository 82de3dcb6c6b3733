"""Plants for what is told of inferences and of turns, wherever it is told, for rules that are overlooked, and edits."""

from collections.abc import Callable
from typing import Any

from turnwire.v1 import inference_pb2
from violations.exchange import Exchange, Plant, RefusalError
from violations.kinds import When, always, changes, takes

# The rpcs that tell of an inference, and those that tell of a turn.
INFERENCES = ("StartInference", "Wait", "Cancel", "GetInference", "ListInferences", "SubmitToolResults")
TURNS = ("Wait", "GetTurn", "ListTurns")

TERMINAL = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)


def tells(edit: Callable[[Any], Any], which: When = always) -> Plant:
    """Tell something else of inferences: `edit(inference)`."""

    def change(_: Any, response: Any) -> None:
        for each in getattr(response, "inferences", None) or [response.inference]:
            if each.inference_id and which(each):
                edit(each)

    return changes(INFERENCES, change)


def tells_turns(edit: Callable[[Any], Any], which: When = always) -> Plant:
    """Tell something else of turns: `edit(turn)`."""

    def change(_: Any, response: Any) -> None:
        for each in getattr(response, "turns", None) or [response.turn]:
            if each.id and which(each):
                edit(each)

    return changes(TURNS, change)


def clears(*fields: str) -> Callable[[Any], None]:
    """Leave fields out."""

    def edit(message: Any) -> None:
        for name in fields:
            message.ClearField(name)

    return edit


def sets(**values: Any) -> Callable[[Any], None]:
    """Set fields."""

    def edit(message: Any) -> None:
        for name, value in values.items():
            setattr(message, name, value)

    return edit


def adds(field: str, number: int) -> Callable[[Any], None]:
    """Tell another number."""

    def edit(message: Any) -> None:
        setattr(message, field, getattr(message, field) + number)

    return edit


def overlooks(method: str, edit: Callable[[Any], Any], reason: str = "INVALID_FIELD", when: When = always) -> Plant:
    """Ask for something else where the server refuses with that reason: `edit(request)`, such as without the field."""

    async def take(exchange: Exchange) -> Any:
        try:
            return await exchange.forward_raw()
        except RefusalError as refusal:
            if refusal.reason != reason or not when(exchange.request):
                raise
        edit(exchange.request)
        return await exchange.forward_raw()

    return takes(method, take)


def refuses_field(method: str, field: str, when: When) -> Plant:
    """Refuse a field without asking the server."""

    async def take(exchange: Exchange) -> Any:
        if when(exchange.request):
            refusal = RefusalError.of("INVALID_FIELD")
            refusal.fields = [field]
            raise refusal
        return await exchange.forward_raw()

    return takes(method, take)


def is_in(*states: str) -> When:
    """Whether an inference is in one of these states, named without their prefix."""
    numbers = [inference_pb2.InferenceState.Value(f"INFERENCE_STATE_{state}") for state in states]
    return lambda inference: inference.state in numbers


def is_unfinished(inference: Any) -> bool:
    """Whether an inference has not ended."""
    return inference.state not in TERMINAL
