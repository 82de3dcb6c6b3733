"""Defects of events: what is unknown, snapshots, and what is made of them."""

from typing import Any

from planted_streams import swap_requests
from planting import plant, swap, swap_everywhere

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import SubscribeEventsRequest
from turnwire_client import _client, _continuity, _watch
from turnwire_client._snapshot import Snapshot
from turnwire_client.output import Output


@plant
def skips_every_unknown_variant() -> None:
    swap_everywhere(
        "is_known", lambda _: lambda event: event.WhichOneof("payload") is not None, _client, _watch, _continuity
    )


@plant
def fails_at_every_unknown_variant() -> None:
    def strict(is_known: Any) -> Any:
        def judge(event: Event) -> bool:
            told = Event()
            told.CopyFrom(event)
            told.ignorable = False
            return bool(is_known(told))

        return judge

    swap_everywhere("is_known", strict, _client, _watch)


@plant
def resumes_a_cut_snapshot_from_its_cursor() -> None:
    def go_on(stream: Any, request: SubscribeEventsRequest) -> None:
        seen = stream._seen
        if seen.snapshot is not None and seen.snapshot.through_sequence is not None:
            seen.after_sequence = request.after_sequence = seen.snapshot.through_sequence
            seen.snapshot = None

    swap_requests(go_on)


@plant
def begins_a_snapshot_again_although_it_was_whole() -> None:
    def begin_again(stream: Any, request: SubscribeEventsRequest) -> None:
        if stream._seen.snapshot_through is not None:
            stream._seen.begin_snapshot()
            request.snapshot.SetInParent()

    swap_requests(begin_again)


@plant
def hands_out_half_a_snapshot() -> None:
    def halving(take: Any) -> Any:
        return lambda self, part, through: take(self, part, through)[::2]

    swap(Snapshot, "take", halving)


@plant
def keeps_what_is_void() -> None:
    swap(Output, "_drop", lambda _: lambda *_: None)


@plant
def drops_all_when_something_is_void() -> None:
    swap(Output, "_drop", lambda _: lambda self, *_: self._blocks.clear())


@plant
def keeps_a_final_that_is_void() -> None:
    def keeping(drop: Any) -> Any:
        def keep(self: Any, inference_id: str, holds_through: int) -> None:
            finals = {key: block.final for key, block in self._blocks.items()}
            drop(self, inference_id, holds_through)
            for key, block in self._blocks.items():
                block.final = finals[key]

        return keep

    swap(Output, "_drop", keeping)


@plant
def takes_an_omitted_text_for_an_empty_one() -> None:
    def emptying(take: Any) -> Any:
        def empty(self: Output, event: Event) -> None:
            told = Event()
            told.CopyFrom(event)
            told.llm_final.ClearField("text_omitted") if event.HasField("llm_final") else None
            take(self, told)

        return empty

    swap(Output, "take", emptying)


@plant
def counts_offsets_in_code_points() -> None:
    def counting(take: Any) -> Any:
        def count(self: Output, event: Event, block: Any, delta: Any) -> None:
            if event.sequence != block.begun:
                block.offset = sum(len(piece) for _, piece in block.pieces)
            take(self, event, block, delta)

        return count

    swap(Output, "_take_delta", counting)


@plant
def shows_no_text_before_the_final() -> None:
    swap(Output, "_take_delta", lambda _: lambda *_: None)
