"""One client's view of a session, held against the promises, and against the model where that is certain."""

import time
from dataclasses import dataclass, field
from typing import Any

from fuzz.model import ENDED, NAMES, ModelInference, ModelSession
from fuzz.stage import ANSWER_SECONDS_MAX, Refusal, Stage
from support.live import CANCELLED, PAUSED, QUEUED, RUNNING, WAITING
from turnwire.v1 import event_pb2, inference_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2 as sessions
from turnwire_conformance.promises import Watch, check_agreement, check_inference, check_log

# From which states a client may find an inference in which one later: every state that moves lead to.
_AFTER_ACTIVE = frozenset({QUEUED, RUNNING, WAITING, PAUSED, *ENDED})
_LATER = {QUEUED: _AFTER_ACTIVE, RUNNING: _AFTER_ACTIVE, WAITING: _AFTER_ACTIVE, PAUSED: _AFTER_ACTIVE}


@dataclass
class Follower:
    """Looks at one session. `watches` are the subscriptions that were made, each from a cursor of its own."""

    stage: Stage
    model: ModelSession
    log: Watch = field(init=False)
    watches: list[Watch] = field(default_factory=list[Watch])
    is_at_rest: bool = True
    _seen: dict[str, inference_pb2.Inference] = field(default_factory=dict[str, inference_pb2.Inference])
    _closed: dict[int, bytes] = field(default_factory=dict[int, bytes])
    _checked: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.log = Watch(self.model.session_id)
        self.log.begin(0)

    # --- coming to rest -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Return once the session is at rest, which is where the model is; then look at all of it."""
        if not self.model.is_certain:
            self._end_all()
        elif not self.is_at_rest:
            for inference in [*self.model.line[:1], *self.model.inferences]:  # the first in line holds up the others
                self._reach(inference)
        self.is_at_rest = True
        self.look()

    def _reach(self, expected: ModelInference) -> None:
        """Return once an inference is where the model is. A stream that tells of it says when to look again."""
        found = self.get(expected)
        if not _is_there(found, expected):
            watch = pb.SubscribeEventsRequest(
                session_id=self.model.session_id, inference_id=expected.inference_id, live=pb.FromLive()
            )
            stream = self.stage.inference.SubscribeEvents(watch, timeout=ANSWER_SECONDS_MAX + 5)
            begin = time.monotonic()
            for _ in stream:
                found = self.get(expected)
                is_late = time.monotonic() - begin > self.stage.patience_seconds
                if _is_there(found, expected) or is_late or found.state in ENDED:
                    stream.cancel()
                    break
        assert _is_there(found, expected), (
            f"NothingStuck: a {expected.kind} is {_name(found)} in attempt {found.attempt},"
            f" not {NAMES[expected.state]} after {expected.losses} losses"
        )

    def _end_all(self) -> None:
        """Cancel what has not ended: whatever happened, each ends then, and the model learns how."""
        model = self.model
        for inference in model.inferences:
            if inference.state not in ENDED or inference in model.line:
                cancel = pb.CancelRequest(inference_id=inference.inference_id, reason="to come to rest")
                self.stage.ask(self.stage.inference.Cancel, cancel)
        for inference in model.inferences:
            wait = pb.WaitRequest(inference_id=inference.inference_id, until=inference_pb2.WAIT_UNTIL_END)
            wait.timeout.FromMilliseconds(int(self.stage.patience_seconds * 1000))
            found = self.stage.ask(self.stage.inference.Wait, wait).inference
            assert found.state in ENDED, f"CancelEnds: {_name(found)} long after the request"
            inference.state = found.state
            inference.turn = found.turn_index if found.HasField("turn_index") else None
        model.line.clear()
        turns = self._turns()
        model.parents = [turn.parent if turn.HasField("parent") else None for turn in turns]
        model.owners = [turn.inference_id for turn in turns]
        model.is_certain = True

    # --- looking --------------------------------------------------------------------------------------

    def get(self, inference: ModelInference) -> inference_pb2.Inference:
        """Return an inference as it is now; check what is to be true of it at any time."""
        request = pb.GetInferenceRequest(inference_id=inference.inference_id)
        found: inference_pb2.Inference = self.stage.ask(self.stage.inference.GetInference, request).inference
        self.keep(found)
        return found

    def keep(self, found: inference_pb2.Inference) -> None:
        """Check an inference against what was seen of it before."""
        before = self._seen.get(found.inference_id)
        self._seen[found.inference_id] = found
        assert found.session_id == self.model.session_id, f"it is of session {found.session_id}"
        assert found.HasField("queue_position") == (found.state == QUEUED), f"{_name(found)} with a place in the line"
        assert found.HasField("end_time") == (found.state in ENDED), f"{_name(found)} with an end_time"
        assert bool(found.finish_class) == (found.state in ENDED), f"{_name(found)} with {found.finish_class}"
        assert found.first_sequence <= found.last_sequence, f"{found.first_sequence} to {found.last_sequence}"
        if before is None:
            return
        assert found.last_sequence >= before.last_sequence, "Ordered: last_sequence goes back"
        assert found.attempt >= before.attempt, "the attempt goes back"
        if before.state in ENDED:
            assert found == before, f"HistoryImmutable: {before} became {found}"
        else:
            assert found.state in _LATER[before.state], f"{_name(before)} became {_name(found)}"

    def look(self) -> None:
        """Look at the whole session at rest, and at what is new in its log."""
        model, stage = self.model, self.stage
        session = stage.ask(stage.session.GetSession, sessions.GetSessionRequest(session_id=model.session_id)).session
        listed = self._inferences()
        first = model.line[0] if model.line else None
        told = (session.revision, session.display_name, session.step_mode, session.turn_count)
        expected = (model.revision, model.display_name, model.step_mode, len(model.parents))
        assert told == expected, f"revision, display_name, step_mode, turn_count: {told}, not {expected}"
        active = session.active.inference_id
        assert active == (first.inference_id if first else ""), f"SingleActive: {active!r} is active, not {first}"
        assert session.queued_count == max(len(model.line) - 1, 0), f"{session.queued_count} are queued"
        ids = [each.inference_id for each in model.inferences]
        assert [each.inference_id for each in reversed(listed)] == ids, "the listing is not that of what was started"
        for found in listed:
            self.keep(found)
        for place, inference in enumerate(model.line):
            found = self._seen[inference.inference_id]
            assert _is_there(found, inference), f"a {inference.kind} is {_name(found)}, not {NAMES[inference.state]}"
            assert not place or found.queue_position == place, f"place {found.queue_position}, not {place}"
        for inference in model.inferences:
            found = self._seen[inference.inference_id]
            assert found.state == inference.state, f"a {inference.kind} is {_name(found)}, not {NAMES[inference.state]}"
        self._look_at_turns()
        self._look_at_log(session.head_sequence, session.log)

    def _look_at_turns(self) -> None:
        turns = self._turns()
        parents = [turn.parent if turn.HasField("parent") else None for turn in turns]
        assert parents == self.model.parents, f"turns are built on {parents}, not {self.model.parents}"
        assert [turn.inference_id for turn in turns] == self.model.owners, "turns belong to other inferences"
        unfinished = {each.inference_id for each in self.model.line}
        for index, turn in enumerate(turns):
            is_closed = turn.state == turn_pb2.TURN_STATE_CLOSED
            assert turn.index == index, f"turn {turn.index} at place {index}"
            assert is_closed == (turn.inference_id not in unfinished), f"turn {index} is closed: {is_closed}"
            inherited = turns[turn.parent].block_count if turn.HasField("parent") else 0
            assert turn.inherited_block_count == inherited, f"turn {index} inherits {turn.inherited_block_count}"
            if is_closed:
                bytes_ = turn.SerializeToString(deterministic=True)
                assert self._closed.setdefault(index, bytes_) == bytes_, f"HistoryImmutable: turn {index} changed"

    def _look_at_log(self, head: int, log: str) -> None:
        self.follow(self.log)
        is_still = (
            not self.model.line or self.model.line[0].state != RUNNING
        )  # what hangs may have said something first
        is_head = self.log.position == head if is_still else self.log.position >= head
        assert is_head, f"the log ends at {self.log.position}, the head is {head}"
        assert self.log.log == log, f"the log is {self.log.log}, that of the session {log}"
        for inference in self.model.inferences:
            if inference.state in ENDED and inference.inference_id not in self._checked:
                self._checked.add(inference.inference_id)
                check_inference(self.events_of(inference))

    def events_of(self, inference: ModelInference) -> list[event_pb2.Event]:
        """Return the events of an inference as far as they were read."""
        return [event for event in self.log.events if event.inference_id == inference.inference_id]

    def follow(self, watch: Watch) -> None:
        """Go on with a watch up to the present head; it checks what comes."""
        watch.begin(watch.position)
        request = pb.SubscribeEventsRequest(
            session_id=self.model.session_id,
            inference_id=watch.inference_id,
            after_sequence=watch.position,
            log=watch.log,
            until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP,
        )
        for response in self.stage.inference.SubscribeEvents(request, timeout=ANSWER_SECONDS_MAX):
            watch.take(response)
        assert watch.end == pb.SUBSCRIPTION_END_REASON_CAUGHT_UP, f"a stream that ended with {watch.end}"

    def close(self) -> None:
        """End what has not ended; check the whole log, and what every watcher saw of it."""
        for inference in list(self.model.line):
            self.model.is_certain = False
            inference.state = CANCELLED if inference.state in ENDED else inference.state
        self.settle()
        check_log(self.log.events)
        for watch in self.watches:
            self.follow(watch)
        check_agreement(self.log.events, self.watches)
        for index in range(len(self.model.parents)):
            at = sessions.TurnAt(session_id=self.model.session_id, index=index)
            request = sessions.GetTurnRequest(at=at, view=turn_pb2.TURN_VIEW_FULL)
            turn = self.stage.ask(self.stage.session.GetTurn, request).turn
            assert len(turn.blocks) == turn.block_count, f"{len(turn.blocks)} blocks of {turn.block_count}"

    def _inferences(self) -> list[inference_pb2.Inference]:
        """Return all inferences, the newest first, in pages of two."""
        return self._pages(self.stage.inference.ListInferences, pb.ListInferencesRequest, "inferences", 2)

    def _turns(self) -> list[turn_pb2.Turn]:
        return self._pages(self.stage.session.ListTurns, sessions.ListTurnsRequest, "turns", 3)

    def _pages(self, rpc: Any, kind: Any, items: str, page_size: int) -> list[Any]:
        found: list[Any] = []
        token = ""
        while token or not found:
            request = kind(session_id=self.model.session_id, page_size=page_size, page_token=token)
            page = self.stage.ask(rpc, request)
            assert not isinstance(page, Refusal), f"a listing is refused: {page}"
            found += getattr(page, items)
            token = page.next_page_token
            if not token:
                break
        return found


def _is_there(found: inference_pb2.Inference, expected: ModelInference) -> bool:
    """Whether an inference is where the model is. One that runs again may still look as before the loss."""
    is_same_attempt = expected.state != RUNNING or found.attempt == expected.losses
    return found.state == expected.state and is_same_attempt


def _name(found: inference_pb2.Inference) -> str:
    return NAMES.get(found.state, str(found.state))
