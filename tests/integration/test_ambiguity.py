"""Every commit of a server goes wrong in turn, and nobody hears whether it landed: nothing is lost, nothing twice."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.faulty_sqlite import sqlite_error
from support.rpc import Stubs, connect, script, start_request
from turnwire.v1 import event_pb2, inference_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import check_log
from turnwire_server.bootstrap import OpenStore, running_server
from turnwire_server.config.settings import Settings
from turnwire_server.domain.clock import Clock
from turnwire_server.domain.ids import mint_id
from turnwire_server.stores.base import OnCommit, SessionStore
from turnwire_server.stores.sqlite import SqliteSessionStore

SUCCEEDED, CANCELLED = inference_pb2.INFERENCE_STATE_SUCCEEDED, inference_pb2.INFERENCE_STATE_CANCELLED
SAID = "one two three four "
# More than the commits of a server that does all this: the last runs meet no failure any more.
COMMITS_MAX = 200


class OneFailure:
    """The `nth` commit that changes something fails, after it has landed or after it was rolled back."""

    def __init__(self, nth: int, *, lands: bool) -> None:
        self.left = nth
        self.lands = lands
        self.was_met = False

    def connection_class(self) -> type[sqlite3.Connection]:
        """Return the class of connections that this happens to."""
        failure = self

        class Failing(sqlite3.Connection):
            """A connection whose one commit fails."""

            changes = 0

            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                """See sqlite3.Connection."""
                if sql != "COMMIT" or self.total_changes == self.changes:
                    return super().execute(sql, parameters)
                self.changes = self.total_changes
                failure.left -= 1
                if failure.left:
                    return super().execute(sql, parameters)
                failure.was_met = True
                super().execute("COMMIT" if failure.lands else "ROLLBACK")
                raise sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)

        return Failing

    def opens(self, path: Path) -> OpenStore:
        """Return what opens a store that this happens to."""

        async def open_store(on_commit: OnCommit, clock: Clock) -> SessionStore:
            return await SqliteSessionStore.open(
                path, on_commit, clock.now, mint_id, synchronous="normal", connection_class=self.connection_class()
            )

        return open_store


async def _read_log(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    request = pb.ListEventsRequest(session_id=session_id, page_size=1000)
    return list((await stubs.inference.ListEvents(request)).events)


async def _converse(stubs: Stubs) -> tuple[str, str]:
    """Use every call that writes; each has to succeed, and to happen once. Return what is left running."""
    sessions = stubs.session
    created = await sessions.CreateSession(session_service_pb2.CreateSessionRequest())
    assert created.created
    session_id = created.session.session_id
    update = session_service_pb2.UpdateSessionRequest(
        session=session_service_pb2.SessionUpdate(session_id=session_id, display_name="named"), revision=1
    )
    update.update_mask.paths.append("display_name")
    assert (await sessions.UpdateSession(update)).session.revision == 2
    started = await stubs.inference.StartInference(
        start_request(session_id, "go", script=script({"text": {"text": SAID}}, {"toolCall": {"name": "t"}}))
    )
    assert started.created
    told = [
        event
        async for response in stubs.inference.SubscribeEvents(
            pb.SubscribeEventsRequest(
                session_id=session_id,
                inference_id=started.inference.inference_id,
                from_beginning=pb.FromBeginning(),
                until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
            )
        )
        for event in response.events
    ]
    ended = await stubs.finish(started.inference.inference_id)
    assert (ended.inference.state, ended.inference.attempt) == (SUCCEEDED, 0)
    assert [block.WhichOneof("kind") for block in ended.turn.blocks] == ["user", "llm_text", "tool_call"]
    hanging = await stubs.start(session_id, script=script({"hang": {}}))
    await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
    assert (await stubs.finish(hanging.inference_id)).inference.state == CANCELLED
    log = await _read_log(stubs, session_id)
    assert log[: len(told)] == told
    assert len(check_log(log)) == 2
    gone = await stubs.create_session()
    await stubs.start(gone, script=script({"hang": {}}))
    await sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=gone, force=True))
    running = await stubs.start(session_id, script=script({"pause": "0.3s"}, {"text": {"text": SAID}}))
    return session_id, running.inference_id


async def _survive(path: Path, failure: OneFailure) -> None:
    settings = Settings(listen="127.0.0.1:0", store=str(path), drain_grace_seconds=0)
    async with running_server(settings, open_store=failure.opens(path)) as server, connect(server.address) as stubs:
        session_id, inference_id = await _converse(stubs)
    async with running_server(settings) as server, connect(server.address) as stubs:
        ended = await stubs.finish(inference_id)
        assert (ended.inference.state, ended.inference.attempt) == (SUCCEEDED, 0)
        own = ended.turn.blocks[ended.turn.given_block_count :]
        assert [block.llm_text.text for block in own] == [SAID]
        assert len(check_log(await _read_log(stubs, session_id))) == 3
        listed = await stubs.session.ListSessions(session_service_pb2.ListSessionsRequest())
        assert [session.session_id for session in listed.sessions] == [session_id]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lands", [True, False], ids=["landed", "rolled back"])
async def test_each_commit_fails_once_in_some_run(tmp_path: Path, lands: bool) -> None:
    for nth in range(1, COMMITS_MAX):
        failure = OneFailure(nth, lands=lands)
        async with asyncio.timeout(60):
            await _survive(tmp_path / f"{nth}.db", failure)
        if not failure.was_met:
            break
    else:
        raise AssertionError("there are more commits than that")
    assert nth > 15, "as many commits failed as a conversation has at least"
