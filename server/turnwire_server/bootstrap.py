"""Puts a server together. The only file that names implementations."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

from turnwire_server.config.error import ConfigError
from turnwire_server.config.profiles import load_profiles
from turnwire_server.config.settings import Settings
from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import EngineOptionsInvalidError, StoreUnavailableError
from turnwire_server.domain.ids import mint_id
from turnwire_server.domain.profile import EngineInfo, Profiles
from turnwire_server.engines import scripted
from turnwire_server.engines.base import Engine
from turnwire_server.engines.pydantic_ai import PydanticAIEngine
from turnwire_server.engines.pydantic_ai import options as pydantic_ai
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.events.bus import Bus, Hint, HintKind, InProcessBus
from turnwire_server.events.fanout import Fanout
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.turnstile import Turnstile
from turnwire_server.rpc.server import RpcServer
from turnwire_server.runtime.assembly import Assembly, assemble
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.runtime import WAITS_MAX, Runtime
from turnwire_server.runtime.step_changes import StepChanges
from turnwire_server.runtime.supervisor import Supervisor
from turnwire_server.stores.base import Commit, OnCommit, SessionStore
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.sqlite_file import StoreOpenError
from turnwire_server.telemetry.logs import logger
from turnwire_server.wire.event import decode_frames, encode_event, encode_frame

# Rpcs at a time besides the event streams: the waits that are held, and plenty of room for the others. Beyond that the
# transport refuses them, without details.
UNARY_RPCS_MAX = WAITS_MAX + 5000

log = logger()


@dataclass(slots=True)
class Server:
    """A server that listens. `abandoned` are the tasks of engines that did not stop when they were cancelled."""

    address: str
    store: SessionStore
    runtime: Runtime
    rpc: RpcServer
    grace_seconds: float
    abandoned: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])

    async def drain(self) -> None:
        """Take nothing new, let what runs end for a while, end every stream, and stop listening."""
        log.info("draining", grace_seconds=self.grace_seconds)
        await self.rpc.begin_drain()
        await self.runtime.drain(self.grace_seconds)
        await self.rpc.stop()

    def hurry(self) -> None:
        """Do not wait for what still runs."""
        self.runtime.hurry()


# Opens the store of a server, which is closed with it.
OpenStore = Callable[[OnCommit, Clock], Awaitable[SessionStore]]


@asynccontextmanager
async def running_server(
    settings: Settings, bus: Bus | None = None, open_store: OpenStore | None = None
) -> AsyncGenerator[Server]:
    """Run a server, on a bus and a store of its own unless they are handed in; it drains at the end of the block.

    Errors: ConfigError; OSError when the address or the store's file cannot be used.
    """
    infos = installed_engines()
    profiles = load_profiles(settings.profiles, os.environ, infos)
    async with AsyncExitStack() as stack:
        fanout, clock = Fanout(), SystemClock()
        mint = partial(mint_id, clock.now)
        bus = bus or InProcessBus()
        open_store = open_store or partial(_open_store, settings)
        store = await open_store(partial(_publish, fanout, bus), clock)
        stack.callback(bus.subscribe(partial(_hear, fanout)))
        stack.push_async_callback(store.close)
        engines = _engines(profiles, stack)
        abandoned: set[asyncio.Task[Any]] = set()
        abandon, silence = _abandon_into(abandoned), settings.silence_seconds_max
        codec = FrameCodec(decode_frames, encode_frame)
        assemblies = await _assemble(profiles, engines, clock, abandon, stack)
        ports = Ports(store, encode_event, clock, mint, abandon, fanout.refresh, silence, StepChanges(clock))

        async def tell_fitness(*, is_fit: bool) -> None:
            await rpc.tell_fitness(is_fit=is_fit)

        supervisor = Supervisor(
            ports,
            bus,
            assemblies,
            codec,
            settings.inferences_running_max,
            tell_fitness,
            settings.events_retention,
        )
        runtime = Runtime(
            store,
            bus,
            fanout,
            supervisor,
            profiles,
            clock,
            mint,
            encode_event,
            codec,
            queue_depth_max=settings.queue_depth_max,
            heartbeat_seconds=settings.heartbeat_seconds,
            watchers_max=settings.watchers_max,
        )
        rpc = RpcServer(
            runtime,
            mint,
            Turnstile(),
            settings.watchers_max + UNARY_RPCS_MAX,
            engines=tuple(infos.values()),
            known_tools=lambda name: assemblies[name].known_tools,
        )
        port = rpc.bind(settings.listen)
        host = settings.listen.rpartition(":")[0]
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run())
            group.create_task(runtime.run())
            await rpc.start()
            group.create_task(rpc.run())
            server = Server(f"{host}:{port}", store, runtime, rpc, settings.drain_grace_seconds, abandoned)
            log.info("listening", address=server.address, store=settings.store, default_profile=profiles.default)
            try:
                yield server
            finally:
                await server.drain()


def _publish(fanout: Fanout, bus: Bus, commits: Sequence[Commit]) -> None:
    """Tell the watchers here of what was committed, and those of other processes that there is something."""
    fanout.publish(commits)
    for commit in commits:
        head = None if commit.is_deleted else commit.chunks[-1].last_sequence
        bus.publish(Hint(HintKind.ADVANCED, "", commit.principal, commit.session_id, head))


def _hear(fanout: Fanout, hint: Hint) -> None:
    """Have watchers look at the store for what another process committed."""
    if hint.kind is HintKind.ADVANCED:
        fanout.refresh(hint.principal, hint.session_id, hint.head_sequence)


async def _open_store(settings: Settings, on_commit: OnCommit, clock: Clock) -> SessionStore:
    mint = partial(mint_id, clock.now)
    if settings.store == "memory":
        return MemorySessionStore(on_commit=on_commit, now=clock.now, mint=mint)
    try:
        return await SqliteSessionStore.open(
            settings.store,
            on_commit=on_commit,
            now=clock.now,
            mint=mint,
            synchronous=settings.synchronous,
            is_restored=settings.restored,
        )
    except (StoreOpenError, StoreUnavailableError) as error:
        msg = f"cannot open the store {settings.store}: {error.__cause__ or error}"
        raise OSError(msg) from error


def installed_engines() -> Mapping[str, EngineInfo]:
    """Return the engines whose packages are installed, by name."""
    infos = [scripted.INFO, *([pydantic_ai.INFO] if find_spec("pydantic_ai") else [])]
    return {info.name: info for info in infos}


# What an engine says of the options of a profile. Errors: EngineOptionsInvalidError.
_CHECK_OPTIONS: Mapping[str, Callable[[Mapping[str, object]], object]] = {
    scripted.ENGINE: scripted.parse_script,
    pydantic_ai.ENGINE: pydantic_ai.parse_options,
}


def _engines(profiles: Profiles, stack: AsyncExitStack) -> Mapping[str, Engine]:
    """Build the engines that the profiles use; they are closed with the stack. Errors: ConfigError."""
    options: dict[str, list[Mapping[str, object]]] = {}
    for profile in profiles.by_name.values():
        try:
            _CHECK_OPTIONS[profile.engine](profile.engine_options)
        except EngineOptionsInvalidError as error:
            msg = f"the engine_options of the profile {profile.name} are not valid: {error}"
            raise ConfigError(msg) from None
        options.setdefault(profile.engine, []).append(profile.engine_options)
    engines: dict[str, Engine] = {}
    if scripted.ENGINE in options:
        playing = engines[scripted.ENGINE] = ScriptedEngine()
        stack.push_async_callback(playing.aclose)
    if pydantic_ai.ENGINE in options:
        asking = engines[pydantic_ai.ENGINE] = PydanticAIEngine(options[pydantic_ai.ENGINE])
        stack.push_async_callback(asking.aclose)
    return engines


async def _assemble(
    profiles: Profiles,
    engines: Mapping[str, Engine],
    clock: Clock,
    abandon: Callable[[asyncio.Task[Any]], None],
    stack: AsyncExitStack,
) -> Mapping[str, Assembly]:
    """Put every profile together; what they hold is given back with the stack. Errors: ConfigError."""
    assemblies: dict[str, Assembly] = {}
    stack.push_async_callback(_close, assemblies)
    for name, profile in profiles.by_name.items():
        try:
            assemblies[name] = await assemble(profile, engines[profile.engine], os.environ, clock, abandon)
        except ValueError as error:
            msg = f"the profile {name} cannot be used: {error}"
            raise ConfigError(msg) from None
    return assemblies


async def _close(assemblies: Mapping[str, Assembly]) -> None:
    """Close all profiles at once: each may have programs to end, and these may take their time."""
    closed = await asyncio.gather(*(each.aclose() for each in assemblies.values()), return_exceptions=True)
    for name, error in zip(assemblies, closed, strict=True):
        if error is not None:
            log.error("a profile could not be closed", profile=name, exc_info=error)


def _abandon_into(abandoned: set[asyncio.Task[Any]]) -> Callable[[asyncio.Task[Any]], None]:
    def abandon(task: asyncio.Task[Any]) -> None:
        abandoned.add(task)
        task.add_done_callback(abandoned.discard)

    return abandon
