"""What every store promises of sessions."""

from datetime import timedelta

import pytest

from contract.store_harness import Harness, gather
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    InferenceNotFoundError,
    ProfileNotFoundError,
    RevisionMismatchError,
    SessionAlreadyExistsError,
    SessionBusyError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotFoundError,
)
from turnwire_server.domain.session import InferenceRef, NewSession, SessionChange
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.base import Fenced, Idempotency

WIDE = NewSession(
    "s", "A name", {"team": "blue"}, {"app.value@v1": '{"big": 12345678901234567890}'}, "fast", timedelta(hours=1)
)


class SessionPromises:
    """Creating, reading, listing, changing and deleting sessions."""

    async def test_a_new_session_has_what_was_said_about_it(self, harness: Harness) -> None:
        session, created = await harness.store.create_session("local", WIDE, None)
        assert created
        assert (session.session_id, session.display_name, session.profile) == ("s", "A name", "fast")
        assert session.labels == {"team": "blue"}
        assert session.metadata == WIDE.metadata
        assert session.create_time == session.update_time == harness.now
        assert session.expire_time == harness.now + timedelta(hours=1)
        assert (session.revision, session.turn_count, session.head_sequence) == (1, 0, 0)
        assert (session.active, session.queued_count, session.origin) == (None, 0, None)
        assert 0 < len(session.log) <= 128
        assert await harness.store.get_session("local", "s") == session

    async def test_a_session_without_a_session_id_gets_one(self, harness: Harness) -> None:
        first, _ = await harness.store.create_session("local", NewSession(), None)
        second, _ = await harness.store.create_session("local", NewSession(), None)
        assert first.session_id != second.session_id
        assert first.expire_time is None

    async def test_a_session_id_is_taken_once(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(SessionAlreadyExistsError):
            await harness.store.create_session("local", NewSession("s"), None)

    async def test_a_session_that_is_not_there(self, harness: Harness) -> None:
        store = harness.store
        for call in (
            store.get_session("local", "s"),
            store.update_session("local", "s", SessionChange(), None),
            store.delete_session("local", "s", None, force=True),
            store.list_inferences("local", "s", (), 10, None),
            store.read_log("local", "s", 0, 1),
            store.get_turn("local", "s", 0, TurnView.FULL, 0, 10),
            store.list_turns("local", "s", TurnView.FULL, 10, None, newest_first=True),
            store.request_cancel("local", "s", "", is_session=True),
            harness.start("s"),
        ):
            with pytest.raises(SessionNotFoundError) as caught:
                await call
            assert caught.value.metadata == {"session_id": "s"}

    async def test_creation_is_idempotent_by_key(self, harness: Harness) -> None:
        guard = Idempotency("CreateSession", "k", b"content")
        first, created = await harness.store.create_session("local", NewSession(), guard)
        changed = await harness.store.update_session("local", first.session_id, SessionChange("x"), None)
        again, created_again = await harness.store.create_session("local", NewSession(), guard)
        assert (created, created_again) == (True, False)
        assert again == changed
        with pytest.raises(IdempotencyKeyReusedError):
            await harness.store.create_session("local", NewSession(), Idempotency("CreateSession", "k", b"other"))
        _, created_elsewhere = await harness.store.create_session("other", NewSession(), guard)
        assert created_elsewhere

    async def test_a_refused_creation_leaves_its_key_free(self, harness: Harness) -> None:
        guard = Idempotency("CreateSession", "k", b"content")
        await harness.session("s")
        with pytest.raises(SessionAlreadyExistsError):
            await harness.store.create_session("local", NewSession("s"), guard)
        _, created = await harness.store.create_session("local", NewSession("t"), guard)
        assert created

    async def test_a_creation_that_its_check_refuses_leaves_nothing(self, harness: Harness) -> None:
        guard = Idempotency("CreateSession", "k", b"content")

        def refuse() -> None:
            raise ProfileNotFoundError(profile="p")

        with pytest.raises(ProfileNotFoundError):
            await harness.store.create_session("local", NewSession("s"), guard, refuse)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")
        first, created = await harness.store.create_session("local", NewSession("s"), guard, lambda: None)
        assert created
        with pytest.raises(ProfileNotFoundError):  # before anything else is looked at
            await harness.store.create_session("local", NewSession("s"), None, refuse)
        assert await harness.store.create_session("local", NewSession("s"), guard, refuse) == (first, False)

    async def test_the_key_of_a_creation_outlives_its_session_for_a_day(self, harness: Harness) -> None:
        guard = Idempotency("CreateSession", "k", b"content")
        await harness.store.create_session("local", NewSession("s"), guard)
        harness.now += timedelta(days=30)
        await harness.store.delete_session("local", "s", None, force=False)
        harness.now += timedelta(hours=24)
        await harness.store.expire(harness.now)
        with pytest.raises(SessionNotFoundError):
            await harness.store.create_session("local", NewSession("s"), guard)
        harness.now += timedelta(seconds=1)
        await harness.store.expire(harness.now)
        _, created = await harness.store.create_session("local", NewSession("s"), guard)
        assert created

    async def test_what_cannot_be_encoded_changes_nothing(self, harness: Harness) -> None:
        with pytest.raises(UnicodeEncodeError):
            await harness.store.create_session("local", NewSession("s", metadata={"a.b@v1": "\ud800"}), None)
        session = await harness.session("s")
        with pytest.raises(UnicodeEncodeError):
            await harness.store.update_session("local", "s", SessionChange("\ud800"), None)
        assert await harness.store.get_session("local", "s") == session
        claim = await harness.running("s")
        with pytest.raises(UnicodeEncodeError):
            await harness.store.request_cancel("local", "s", "\ud800", is_session=True)
        assert await harness.store.get_inference("local", claim.inference.inference_id) == claim.inference

    async def test_a_change_replaces_only_what_it_names(self, harness: Harness) -> None:
        await harness.store.create_session("local", WIDE, None)
        harness.now += timedelta(seconds=1)
        changed = await harness.store.update_session("local", "s", SessionChange(labels={"a": "b"}), 1)
        assert changed.labels == {"a": "b"}
        assert (changed.display_name, changed.metadata, changed.profile) == ("A name", WIDE.metadata, "fast")
        assert (changed.revision, changed.update_time) == (2, harness.now)
        assert changed.create_time < changed.update_time
        assert await harness.store.get_session("local", "s") == changed

    async def test_a_change_from_another_revision_is_refused(self, harness: Harness) -> None:
        session = await harness.session("s")
        with pytest.raises(RevisionMismatchError):
            await harness.store.update_session("local", "s", SessionChange("x"), 2)
        with pytest.raises(RevisionMismatchError):
            await harness.store.delete_session("local", "s", 2, force=False)
        assert await harness.store.get_session("local", "s") == session

    async def test_inferences_do_not_change_the_revision(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "hi", "ho")
        session = await harness.store.get_session("local", "s")
        assert (session.revision, session.turn_count) == (1, 1)
        assert session.head_sequence == 5  # queued, started, opened, closed, finished

    async def test_a_session_tells_of_its_line(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.start("s")
        await harness.start("s")
        session = await harness.store.get_session("local", "s")
        assert session.active == InferenceRef("s", claim.inference.inference_id)
        assert session.queued_count == 2

    async def test_a_session_lives_for_its_ttl_after_its_last_inference(self, harness: Harness) -> None:
        await harness.store.create_session("local", WIDE, None)
        harness.now += timedelta(minutes=10)
        await harness.turn("s", "hi", "ho")
        session = await harness.store.get_session("local", "s")
        assert session.expire_time == harness.now + timedelta(hours=1)

    async def test_sessions_are_listed_newest_first_in_pages(self, harness: Harness) -> None:
        for number in range(7):
            await harness.session(f"s{number}")
        seen: list[str] = []
        cursor: int | None = None
        while True:
            page = await harness.store.list_sessions("local", {}, 3, cursor)
            seen.extend(session.session_id for session in page.items)
            if page.next is None:
                break
            cursor = page.next
        assert seen == [f"s{number}" for number in reversed(range(7))]

    async def test_a_page_that_is_just_full_has_no_next(self, harness: Harness) -> None:
        for number in range(3):
            await harness.session(f"s{number}")
        page = await harness.store.list_sessions("local", {}, 3, None)
        assert len(page.items) == 3
        assert page.next is None

    async def test_sessions_are_filtered_by_all_labels(self, harness: Harness) -> None:
        for session_id, labels in {"a": {"x": "1"}, "b": {"x": "1", "y": "2"}, "c": {"x": "2", "y": "2"}}.items():
            await harness.store.create_session("local", NewSession(session_id, labels=labels), None)

        async def listed(labels: dict[str, str]) -> list[str]:
            return [each.session_id for each in (await harness.store.list_sessions("local", labels, 9, None)).items]

        assert await listed({}) == ["c", "b", "a"]
        assert await listed({"x": "1"}) == ["b", "a"]
        assert await listed({"x": "1", "y": "2"}) == ["b"]
        assert await listed({"z": ""}) == []
        await harness.store.update_session("local", "a", SessionChange(labels={"z": ""}), None)
        assert await listed({"z": ""}) == ["a"]
        assert await listed({"x": "1"}) == ["b"]

    async def test_principals_do_not_see_each_other(self, harness: Harness) -> None:
        await harness.session("s")
        mine = await harness.turn("s", "hi", "ho")
        theirs = await harness.session("s", principal="other")
        assert theirs.head_sequence == 0
        assert theirs.log != (await harness.store.get_session("local", "s")).log
        assert (await harness.store.list_inferences("other", "s", (), 10, None)).items == ()
        for call in (
            harness.store.get_inference("other", mine.inference_id),
            harness.store.request_cancel("other", mine.inference_id, "", is_session=False),
        ):
            with pytest.raises(InferenceNotFoundError):
                await call
        claim = await harness.running("s")
        stolen = type(claim.lease)("other", claim.lease.inference_id, claim.lease.token)
        with pytest.raises(Fenced):
            await harness.store.append(stolen, 0, harness.deltas(claim, "x"))

    async def test_a_deleted_session_is_gone_with_all_that_belongs_to_it(self, harness: Harness) -> None:
        log = (await harness.session("s")).log
        done = await harness.turn("s", "hi", "ho")
        await harness.store.delete_session("local", "s", None, force=False)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")
        with pytest.raises(InferenceNotFoundError):
            await harness.store.get_inference("local", done.inference_id)
        assert harness.commits[-1].is_deleted
        for index in (0, None):
            with pytest.raises(SessionNotFoundError):
                await harness.full("s", index)
        with pytest.raises(SessionNotFoundError):
            await harness.store.list_turns("local", "s", TurnView.FULL, 9, None, newest_first=True)
        again = await harness.session("s")
        for index in (0, None):
            with pytest.raises(TurnNotFoundError):
                await harness.full("s", index)
        assert (again.head_sequence, again.turn_count) == (0, 0)
        assert again.log != log
        assert (await harness.chunks("s")) == ()

    async def test_a_busy_session_is_deleted_only_by_force(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s")
        await harness.start("s")
        with pytest.raises(SessionBusyError) as caught:
            await harness.store.delete_session("local", "s", None, force=False)
        assert caught.value.metadata == {"session_id": "s", "inference_id": first.inference_id}
        claim = await harness.claim()
        await harness.store.delete_session("local", "s", 1, force=True)
        with pytest.raises(Fenced):
            await harness.store.append(claim.lease, 0, harness.deltas(claim, "x"))
        with pytest.raises(Fenced):
            await harness.finish(claim, 0)
        assert await harness.store.claim("me", 10) == ()
        assert await harness.store.heartbeat("me") == ()

    async def test_the_last_of_two_deletions_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        outcomes = await gather(*(harness.store.delete_session("local", "s", None, force=False) for _ in range(2)))
        assert outcomes[0] is None
        assert isinstance(outcomes[1], SessionNotFoundError)

    async def test_a_closed_store_refuses_everything(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.close()
        await harness.store.close()
        for call in (
            harness.session("t"),
            harness.start("s"),
            harness.store.get_session("local", "s"),
            harness.store.append(claim.lease, 0, harness.deltas(claim, "x")),
            harness.store.heartbeat("me"),
        ):
            with pytest.raises(StoreUnavailableError):
                await call
        harness.commits.clear()
