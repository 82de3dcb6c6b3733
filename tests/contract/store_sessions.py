"""What every store promises of sessions."""

from datetime import timedelta

import pytest

from contract.store_calls import calls_about
from contract.store_harness import ADMISSION, Harness
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    InferenceNotFoundError,
    ProfileNotFoundError,
    RevisionMismatchError,
    SessionAlreadyExistsError,
    SessionNotFoundError,
)
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.session import InferenceRef, NewSession, SessionChange
from turnwire_server.stores.base import Amendment, Base
from turnwire_server.stores.lease import Fenced
from turnwire_server.stores.start import Admission, Idempotency, SessionState, StartCommand

WIDE = NewSession(
    "s", "A name", {"team": "blue"}, {"app.value@v1": '{"big": 12345678901234567890}'}, "fast", timedelta(hours=1)
)
CONFIG = InferenceConfig("m", 0.1, 0.9, 100, ("end", "ü"), -7, "high", 3, "auto", parallel_tool_calls=False)
GUARD = Idempotency("CreateSession", "k", b"content")


class SessionPromises:
    """Creating, reading, listing and changing sessions."""

    async def test_a_new_session_has_what_was_said_about_it(self, harness: Harness) -> None:
        session, created = await harness.store.create_session("local", WIDE, "token", None)
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

    async def test_the_token_is_the_identity_of_the_log(self, harness: Harness) -> None:
        sessions = [(await harness.store.create_session("local", NewSession(n), n, None))[0] for n in "abc"]
        assert len({session.log for session in sessions}) == 3
        for session in sessions:
            page = await harness.store.read_log("local", session.session_id, 0, 1)
            assert page.log == session.log

    async def test_a_session_id_is_taken_once(self, harness: Harness) -> None:
        session = await harness.session("s")
        with pytest.raises(SessionAlreadyExistsError):
            await harness.store.create_session("local", WIDE, harness.mint(), None)
        assert await harness.store.get_session("local", "s") == session

    async def test_a_session_that_is_not_there(self, harness: Harness) -> None:
        await harness.session("s", principal="other")
        before = await harness.everything()
        for call in calls_about(harness, "s"):
            with pytest.raises(SessionNotFoundError) as caught:
                await call
            assert caught.value.metadata == {"session_id": "s"}
        assert await harness.everything() == before

    async def test_creation_is_idempotent_by_key(self, harness: Harness) -> None:
        first, created = await harness.store.create_session("local", NewSession("a"), harness.mint(), GUARD)
        changed = await harness.store.update_session("local", "a", SessionChange("x"), None, harness.mint())
        # Another call for the same intent: the server minted another session_id and another token.
        again, created_again = await harness.store.create_session("local", NewSession("b"), harness.mint(), GUARD)
        assert (created, created_again) == (True, False)
        assert (again, again.log) == (changed, first.log)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "b")
        other = Idempotency("CreateSession", "k", b"other")
        with pytest.raises(IdempotencyKeyReusedError):
            await harness.store.create_session("local", NewSession("b"), harness.mint(), other)
        _, created_elsewhere = await harness.store.create_session("other", NewSession("a"), harness.mint(), GUARD)
        assert created_elsewhere

    async def test_a_refused_creation_leaves_its_key_free(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(SessionAlreadyExistsError):
            await harness.store.create_session("local", NewSession("s"), harness.mint(), GUARD)
        _, created = await harness.store.create_session("local", NewSession("t"), harness.mint(), GUARD)
        assert created

    async def test_a_creation_that_its_check_refuses_leaves_nothing(self, harness: Harness) -> None:
        def refuse() -> None:
            raise ProfileNotFoundError(profile="p")

        create, new = harness.store.create_session, NewSession("s")
        with pytest.raises(ProfileNotFoundError):
            await create("local", new, harness.mint(), GUARD, refuse)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")
        first, created = await create("local", new, harness.mint(), GUARD, lambda: None)
        assert created
        with pytest.raises(ProfileNotFoundError):  # before anything else is looked at
            await create("local", new, harness.mint(), None, refuse)
        assert await create("local", new, harness.mint(), GUARD, refuse) == (first, False)  # after the gate

    async def test_what_cannot_be_encoded_changes_nothing(self, harness: Harness) -> None:
        broken = NewSession("s", metadata={"a.b@v1": "\ud800"})
        with pytest.raises(UnicodeEncodeError):
            await harness.store.create_session("local", broken, harness.mint(), GUARD)
        await harness.store.create_session("local", NewSession("s"), harness.mint(), GUARD)
        claim = await harness.running("s")
        before = await harness.everything()
        for change in (SessionChange("\ud800"), SessionChange(config=InferenceConfig("\ud800"))):
            with pytest.raises(UnicodeEncodeError):
                await harness.store.update_session("local", "s", change, None, "again")
        with pytest.raises(UnicodeEncodeError):
            await harness.cancel(claim.inference, "\ud800")
        assert await harness.everything() == before
        changed = await harness.store.update_session("local", "s", SessionChange("x"), None, "again")
        assert (changed.display_name, changed.revision) == ("x", 2)

    async def test_a_change_replaces_only_what_it_names(self, harness: Harness) -> None:
        await harness.store.create_session("local", WIDE, harness.mint(), None)
        harness.now += timedelta(seconds=1)
        change = SessionChange(labels={"a": "b"})
        changed = await harness.store.update_session("local", "s", change, 1, harness.mint())
        assert changed.labels == {"a": "b"}
        assert (changed.display_name, changed.metadata, changed.profile) == ("A name", WIDE.metadata, "fast")
        assert (changed.revision, changed.update_time) == (2, harness.now)
        assert changed.create_time < changed.update_time
        assert await harness.store.get_session("local", "s") == changed

    async def test_the_configuration_of_a_session_is_replaced_as_a_whole(self, harness: Harness) -> None:
        session = await harness.session("s", config=CONFIG)
        assert session.config == CONFIG
        assert (await harness.session("plain")).config == InferenceConfig()
        renamed = await harness.store.update_session("local", "s", SessionChange("x"), None, harness.mint())
        assert renamed.config == CONFIG
        for config in (InferenceConfig(top_p=0.3), InferenceConfig(), CONFIG):
            change = SessionChange(config=config)
            changed = await harness.store.update_session("local", "s", change, None, harness.mint())
            assert (changed.config, changed.display_name, changed.revision) == (config, "x", renamed.revision + 1)
            assert await harness.store.get_session("local", "s") == changed
            renamed = changed
        listed = await harness.store.list_sessions("local", {}, 9, None)
        assert [each.config for each in listed.items] == [InferenceConfig(), CONFIG]

    async def test_a_decision_sees_the_configuration_of_a_session(self, harness: Harness) -> None:
        seen: list[InferenceConfig] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state.session.config)
            return ADMISSION

        await harness.session("s", config=CONFIG)
        for target in ("s", NewSession("t", config=CONFIG)):
            await harness.store.start(harness.command(target), look)
        assert seen == [CONFIG, CONFIG]

    async def test_a_change_at_any_revision(self, harness: Harness) -> None:
        await harness.session("s")
        for revision, name in enumerate("abc", 2):
            changed = await harness.store.update_session("local", "s", SessionChange(name), None, harness.mint())
            assert (changed.display_name, changed.revision) == (name, revision)

    async def test_a_change_from_another_revision_is_refused(self, harness: Harness) -> None:
        session = await harness.session("s")
        with pytest.raises(RevisionMismatchError):
            await harness.store.update_session("local", "s", SessionChange("x"), 2, "t")
        with pytest.raises(RevisionMismatchError):
            await harness.store.delete_session("local", "s", 2, force=False)
        assert await harness.store.get_session("local", "s") == session
        # It did not happen, so its token was not used up.
        assert (await harness.store.update_session("local", "s", SessionChange("x"), 1, "t")).revision == 2

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
        await harness.store.create_session("local", WIDE, harness.mint(), None)
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

    async def test_a_page_of_sessions_has_a_mebibyte_or_one_session(self, harness: Harness) -> None:
        for number, size in enumerate((2_000_000, 400_000, 400_000, 400_000)):
            await harness.session(f"s{number}", metadata={"a.b@v1": "x" * size})
        sizes: list[int] = []
        cursor: int | None = None
        while True:
            page = await harness.store.list_sessions("local", {}, 9, cursor)
            sizes.append(len(page.items))
            if page.next is None:
                break
            cursor = page.next
        assert sizes == [2, 1, 1]

    async def test_sessions_are_filtered_by_all_labels(self, harness: Harness) -> None:
        for session_id, labels in {"a": {"x": "1"}, "b": {"x": "1", "y": "2"}, "c": {"x": "2", "y": "2"}}.items():
            await harness.session(session_id, labels=labels)

        async def listed(labels: dict[str, str]) -> list[str]:
            return [each.session_id for each in (await harness.store.list_sessions("local", labels, 9, None)).items]

        assert await listed({}) == ["c", "b", "a"]
        assert await listed({"x": "1"}) == ["b", "a"]
        assert await listed({"x": "1", "y": "2"}) == ["b"]
        assert await listed({"z": ""}) == []
        await harness.store.update_session("local", "a", SessionChange(labels={"z": ""}), None, harness.mint())
        assert await listed({"z": ""}) == ["a"]
        assert await listed({"x": "1"}) == ["b"]

    async def test_principals_do_not_see_each_other(self, harness: Harness) -> None:
        await harness.session("s")
        mine = await harness.turn("s", "hi", "ho")
        theirs = await harness.session("s", principal="other")
        assert theirs.head_sequence == 0
        assert theirs.log != (await harness.store.get_session("local", "s")).log
        assert (await harness.store.list_inferences("other", "s", (), 10, None)).items == ()
        claim = await harness.waiting("s")
        for call in (
            harness.store.get_inference("other", mine.inference_id),
            harness.store.request_cancel("other", claim.inference.inference_id, ""),
            harness.store.amend("other", claim.inference.inference_id, harness.mint(), _never),
        ):
            with pytest.raises(InferenceNotFoundError):
                await call
        running = await harness.running("s", principal="other")
        stolen = type(running.lease)("local", running.lease.inference_id, running.lease.token)
        with pytest.raises(Fenced):
            await harness.store.append(stolen, 0, harness.deltas(running, "x"))
        await harness.finish(running, 0)
        head = (await harness.store.get_session("other", "s")).head_sequence
        await harness.store.compact("other", "s", Base(head, b"theirs"))
        assert await harness.store.read_base("local", "s") == Base()


def _never(_: object) -> Amendment:
    raise AssertionError
