"""What one session's clients and watchers are told: checked against what they were told before, then remembered.

`before` is always what was known when the request was sent: replies may overtake each other.
"""

import time
from collections.abc import Collection

from fault.checks import (
    TERMINAL,
    check_busy,
    check_cancel_time,
    check_cancel_told,
    check_inference_kept,
    check_own,
    check_refusal,
    check_reply,
    check_session_kept,
    check_update_kept,
)
from fault.ends import check_outcome
from fault.ledger import Asked, SessionLedger, Tally
from fault.link import Life, Link, RefusedError
from fault.logbook import digest
from fault.pulse import Pulse
from turnwire.v1 import error_reason_pb2 as reasons
from turnwire.v1 import inference_pb2
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.inference_service_pb2 import CancelResponse, StartInferenceResponse, SubscribeEventsResponse
from turnwire.v1.session_pb2 import Session
from turnwire_conformance.promises import Watch


class Witness:
    """Hears all replies about one session."""

    def __init__(self, ledger: SessionLedger, link: Link, tally: Tally, pulse: Pulse) -> None:
        self.ledger = ledger
        self.tally = tally
        self._pulse = pulse
        self._link = link

    def hear_session(self, before: Session, names: Collection[str], now: Session) -> None:
        """Take a session as it was told; `names` are those it could have had before."""
        ledger = self.ledger
        if before.session_id:
            check_session_kept(before, now)
        check_update_kept(now, {*names, *ledger.names})
        if ledger.session is before:
            ledger.session = now

    def hear_update(self, name: str, now: Session) -> None:
        """Take the reply to an update."""
        check_update_kept(now, {name})
        self.ledger.names = [name]

    def hear_start(self, asked: Asked, before: Inference, reply: StartInferenceResponse, life: Life) -> None:
        """Take the reply to a start, the first one or a repeat."""
        ledger = self.ledger
        asked.open_count -= 1
        check_reply(asked, reply)
        if not asked.inference_id:
            check_own(asked, reply.inference.inference_id, {*ledger.ended, *ledger.unfinished})
            ledger.unanswered.remove(asked)
            ledger.unfinished[reply.inference.inference_id] = asked
            self.tally.plays[asked.play.kind] += 1
            if ledger.to_watch.empty():
                ledger.to_watch.put_nowait(reply.inference)
        if not reply.created:
            self.tally.counts["starts repeated"] += 1
        asked.is_created |= reply.created
        self.hear_inference(asked, before, reply.inference, life)

    def hear_refused_start(
        self, asked: Asked, before: Inference, refused: RefusedError, unfinished: Collection[str]
    ) -> None:
        """Take a refusal. Only a session that is busy, with what was unfinished, refuses what these clients ask for."""
        ledger = self.ledger
        check_refusal(asked, before, refused.reason)
        asked.open_count -= 1
        if not asked.open_count and asked in ledger.unanswered:
            ledger.unanswered.remove(asked)
        check_busy(refused.metadata["inference_id"], {*unfinished, *ledger.unfinished}, len(ledger.unanswered))
        self.tally.counts["starts refused as busy"] += 1

    def hear_inference(self, asked: Asked, before: Inference, now: Inference, life: Life) -> None:
        """Take an inference as it was told."""
        if before.inference_id:
            check_inference_kept(before, now)
        if asked.seen is before or now.state in TERMINAL:
            asked.seen = now
        if now.state == inference_pb2.INFERENCE_STATE_RUNNING:
            asked.running_life = life.number
        if now.state in TERMINAL and now.inference_id in self.ledger.unfinished:
            del self.ledger.unfinished[now.inference_id]
            self._conclude(asked, life)

    def hear_cancel(self, asked: Asked, before: Inference, reply: CancelResponse, life: Life) -> None:
        """Take the reply to a cancel."""
        now = reply.inference
        check_cancel_told(now)
        if now.state not in TERMINAL:
            asked.cancel_life = asked.cancel_life or life.number
        self.tally.counts["cancels acknowledged"] += 1
        self.hear_inference(asked, before, now, life)

    def hear_events(self, watch: Watch, response: SubscribeEventsResponse, live_after: int, life: Life) -> None:
        """Take a response of a stream; what follows the sequence `live_after` has happened in this life."""
        watch.take(response)
        self.ledger.moved.set()
        self._link.history.see(life.number, watch.session_id, watch.inference_id, response)
        self.tally.counts["events watched"] += len(response.events)
        for event in response.events:
            asked = self.ledger.unfinished.get(event.inference_id)
            if asked and event.HasField("inference_finished"):
                asked.has_ended_in_log = True
            if asked and event.sequence > live_after and event.HasField("inference_started"):
                asked.running_life = life.number
            if asked and event.sequence > live_after and asked.play.kind == "provided" and event.entity:
                self._link.warm_time = min(self._link.warm_time, time.monotonic())

    def _conclude(self, asked: Asked, life: Life) -> None:
        now, ledger = asked.seen, self.ledger
        ends = life.number - asked.first_life + life.is_ending
        is_cancel_kept = (
            bool(asked.cancel_life)
            and not self._link.was_set_back_since(asked.cancel_life)
            and self._link.has_ended_since(asked.cancel_life, now.end_time.ToMicroseconds() / 1e6)
        )
        is_excused = self._link.provider_troubles.was_any(asked.asked_time)
        check_outcome(asked, ends, is_cancel_kept=is_cancel_kept, is_excused=is_excused)
        self._check_cancel_time(asked)
        ledger.ended[now.inference_id] = digest(now)
        ledger.recent[now.inference_id] = asked
        self.tally.outcomes[outcome_of(now)] += 1

    def _check_cancel_time(self, asked: Asked) -> None:
        """Check how long a cancel took, unless the server was held up, or its clock jumped."""
        link, since = self._link, asked.cancel_time
        is_told = asked.seen.HasField("cancel_requested_time") and asked.cancel_count
        if is_told and not link.troubles.was_held_up(since) and max(link.jump_time, link.warm_time) < since:
            check_cancel_time(asked, self._pulse.excuse_seconds(since))
            self.tally.counts["cancels timed"] += 1


def outcome_of(inference: Inference) -> str:
    """Return how an inference ended, in a word or two."""
    state = inference_pb2.InferenceState.Name(inference.state).removeprefix("INFERENCE_STATE_")
    if not inference.error.reason:
        return state
    reason = reasons.ErrorReason.Name(inference.error.reason).removeprefix("ERROR_REASON_")
    return f"{state} {reason}"
