"""For the tests of your own code: a turnwire server that runs inside them and does what it is told.

    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.reply("Because of Rayleigh scattering.", thinking="Light, air, ...")
        handle = await client.start_inference(input="Why is the sky blue?")
        assert (await handle.result()).text == "Because of Rayleigh scattering."
        assert fake.requests_of(StartInferenceRequest)[0].input[0].user.text == "Why is the sky blue?"

It is a real gRPC server on a free port of 127.0.0.1 and keeps the contract, in memory: sessions, turns, the event log
with its seven promises (but not Durable), idempotency keys, SESSION_BUSY, Wait, Cancel, profiles. Every page has
everything. What it lacks is answered with FEATURE_NOT_IMPLEMENTED: conflict policies other than REJECT, tools, output
schemas. It takes `cancel_after_disconnect` and cancels nothing.

And it fails on demand: `fail` and `hang` are about inferences, `refuse` and `lose_reply` about rpcs, `cut_streams`
about streams of events, `restart` about the whole server.
"""

from collections.abc import Mapping
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message

from turnwire.v1.engine_pb2 import Profile
from turnwire.v1.error_reason_pb2 import Error, ErrorReason
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Usage
from turnwire_client._errors import ERRORS, InferenceFailedError
from turnwire_client._fake import FakeStore, Refused, Script
from turnwire_client._fake_rpcs import Cut, FakeRpcs, Fault
from turnwire_client._status import REASON_PREFIX

__all__ = ["Cut", "FakeServer"]

M = TypeVar("M", bound=Message)


class FakeServer:
    """A turnwire server for tests; an async context manager. `target` is where it listens once it is entered."""

    def __init__(self) -> None:
        self._store = FakeStore()
        self._rpcs = FakeRpcs(self._store)
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def requests(self) -> list[Message]:
        """Every request in the order of arrival, those that were refused included."""
        return self._rpcs.requests

    @property
    def target(self) -> str:
        """`host:port` for Client.connect."""
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- what to do ---------------------------------------------------------------------------------

    def reply(self, text: str, *, thinking: str = "", usage: Usage | None = None) -> None:
        """The next inference that nothing was said about produces this. By default it says its input back."""
        self._store.scripts.append(Script(text, thinking, usage or Usage()))

    def fail(
        self, reason: str = "ENGINE_UNAVAILABLE", *, text: str = "", message: str = "as told", **metadata: str
    ) -> None:
        """The next inference is accepted, produces this text and ends FAILED, for one of the reasons that end one."""
        kind = ERRORS[reason]
        if not issubclass(kind, InferenceFailedError):
            raise ValueError(f"{reason} does not end an inference; refuse() is for that")
        known = {key: metadata.get(key, "") for key in kind.metadata_keys}
        number = ErrorReason.Value(REASON_PREFIX + reason)
        error = Error(reason=number, code=kind.code.value[0], message=message, metadata=known)
        self._store.scripts.append(Script(text, error=error))

    def hang(self, text: str = "") -> None:
        """The next inference produces this text and then nothing; it stays RUNNING until it is cancelled."""
        self._store.scripts.append(Script(text, hang=True))

    def hold_waits(self, *, hold: bool) -> None:
        """Whether Wait holds, as a server does that is not too busy; otherwise it returns the present state at once."""
        self._rpcs.holds_waits = hold

    def add_profile(self, profile: Profile) -> None:
        """ListProfiles and GetProfile have it; with `is_default` it is the default one. Inferences take any profile."""
        self._rpcs.profiles.add(profile)

    def refuse(
        self,
        reason: str,
        *,
        rpc: str = "StartInference",
        times: int = 1,
        retry_delay: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """The next requests of this rpc are answered with this reason, before anything happens."""
        refused = Refused(reason, **(metadata or {}))
        self._rpcs.faults.append(Fault(rpc, refused, retry_delay, times))

    def lose_reply(
        self, rpc: str = "StartInference", *, times: int = 1, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    ) -> None:
        """The next requests of this rpc are carried out, and the reply is lost: the client sees this code."""
        self._rpcs.faults.append(Fault(rpc, code, times=times))

    def cut_streams(self, after_events: int = 0, *, how: Cut = "unavailable", times: int = 1) -> None:
        """Each of the next streams of events breaks after so many events."""
        self._rpcs.cuts.extend((after_events, how) for _ in range(times))

    def add_event(
        self, session_id: str, inference_id: str, payload: Message | None = None, *, ignorable: bool = False
    ) -> Event:
        """Appends an event to a session's log; without a payload it is of a kind that no client knows."""
        return self._store.session(session_id).append(inference_id, payload, ignorable=ignorable)

    def requests_of(self, kind: type[M]) -> list[M]:
        """The requests of one type, in the order of arrival."""
        return [request for request in self.requests if isinstance(request, kind)]

    def events_of(self, session_id: str) -> list[Event]:
        """The session's log."""
        return list(self._store.session(session_id).events)

    async def stop(self) -> None:
        """Stops listening and cuts every connection; what it remembers stays."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def restart(self) -> None:
        """Cuts every connection and listens again, on the same port, with everything still there."""
        await self.stop()
        await self._listen()

    async def _listen(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(self._rpcs.handlers())
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        await server.start()
        self._server = server
