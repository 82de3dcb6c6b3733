"""The commands, their options and their help."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from turnwire_client.cli import _options
from turnwire_client.cli._options import (
    INDEX_MAX,
    SEQUENCE_MAX,
    InferenceId,
    Json,
    Model,
    Profile,
    SessionId,
    SessionOption,
    System,
    Target,
    Version,
)

app = typer.Typer(
    name="turnwire",
    help="Sessions, inferences and their events, from the command line.",
    epilog="Exit codes: 0 done, 1 refused, 2 wrong usage, 3 server not reached, 4 FAILED, 5 CANCELLED, 6 timeout.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
sessions_app = typer.Typer(help="List, show, fork and delete sessions.", no_args_is_help=True)
turns_app = typer.Typer(help="List and show the turns of a session.", no_args_is_help=True)
profiles_app = typer.Typer(help="List and show the profiles of a server.", no_args_is_help=True)
app.add_typer(sessions_app, name="sessions")
app.add_typer(turns_app, name="turns")
app.add_typer(profiles_app, name="profiles")

TARGET = "127.0.0.1:7450"
PASS_THROUGH: dict[Any, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.callback()
def turnwire(version: Version = False) -> None:
    """Sessions, inferences and their events, from the command line."""


@app.command(context_settings=PASS_THROUGH, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Run a server; all arguments are the server's: serve --help."""
    from turnwire_client.cli._serve import serve as become_server

    become_server(context.args)


@app.command()
def start(
    text: Annotated[str, typer.Argument(help="What the user says; - reads stdin. Nothing: go on from there.")] = "",
    session: SessionOption = None,
    system: System = "",
    profile: Profile = None,
    model: Model = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Idempotency key: with it, a repeat starts nothing new.", callback=_options.given),
    ] = None,
    conflict: Annotated[
        Literal["reject", "enqueue", "interrupt", "rollback"], typer.Option(help="What to do when the session is busy.")
    ] = "reject",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that the inference may take.", callback=_options.duration)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it up to its end.")] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Start an inference. It goes on by itself, unless the server refuses it."""
    from turnwire_client.cli import _inferences, _run

    command = _inferences.start(
        _run.guarded(target, sys.stdin.read, as_json=as_json) if text == "-" else text,
        session or "",
        system=system,
        profile=profile or "",
        model=model or "",
        key=key or "",
        conflict=conflict,
        timeout=timeout,
        follow=follow,
        as_json=as_json,
    )
    _run.run(target, command, as_json=as_json)


@app.command()
def chat(
    session: SessionOption = None,
    system: System = "",
    profile: Profile = None,
    model: Model = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Talk: Ctrl-C stops an answer and keeps the session, a second one leaves. Reads stdin when it is piped."""
    from turnwire_client.cli._chat import chat as talk

    talk(target, session or "", system=system, profile=profile or "", model=model or "", as_json=as_json)


@app.command()
def watch(
    session: SessionId,
    inference: Annotated[
        str | None, typer.Option("--inference", help="Only events of this inference_id.", callback=_options.given)
    ] = None,
    after: Annotated[
        int | None, typer.Option("--after", min=0, max=SEQUENCE_MAX, help="Begin after this sequence.")
    ] = None,
    log: Annotated[
        str | None, typer.Option("--log", help="The log token that came with the sequence.", callback=_options.given)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Begin with what happens from now on.")] = False,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Begin with what everything so far amounts to.")] = False,
    until: Annotated[
        Literal["follow", "inference_end", "caught_up"], typer.Option(help="When to end by itself.")
    ] = "follow",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Show the events of a session, each once, also across cuts and restarts of the server."""
    from turnwire_client.cli import _inferences, _run

    if until == "inference_end" and not inference:
        raise typer.BadParameter("inference_end needs --inference", param_hint="--until")
    for name, is_set in (("--live", live), ("--snapshot", snapshot)):
        if is_set and (after is not None or (live and snapshot)):
            raise typer.BadParameter("only one of --after, --live and --snapshot", param_hint=name)
    begin: int | Literal["live", "snapshot", "beginning"] = "beginning" if after is None else after
    if live or snapshot:
        begin = "live" if live else "snapshot"
    command = _inferences.watch(session, inference or "", begin, until, log or "", as_json=as_json, target=target)
    _run.run(target, command, as_json=as_json)


@app.command()
def wait(
    inference: InferenceId,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait at most; 0 only looks.", callback=_options.patience)
    ] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Wait for the end of an inference and show its answer."""
    from turnwire_client.cli import _inferences, _run

    _run.run(target, _inferences.wait(inference, timeout, as_json=as_json), as_json=as_json)


@app.command()
def cancel(
    inference: Annotated[
        str | None, typer.Argument(metavar="INFERENCE", help="The inference_id.", callback=_options.named)
    ] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", help="Instead: whatever runs in this session.", callback=_options.named),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Request that an inference stops."""
    from turnwire_client.cli import _inferences, _run

    if bool(inference) == bool(session):
        raise typer.BadParameter("name either an INFERENCE or a --session")
    _run.run(target, _inferences.cancel(inference or "", session or "", reason, as_json=as_json), as_json=as_json)


@sessions_app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """List sessions, the newest first."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.list_sessions(limit, as_json=as_json), as_json=as_json)


@sessions_app.command("show")
def show_session(session: SessionId, target: Target = TARGET, as_json: Json = False) -> None:
    """Show one session."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.show_session(session, as_json=as_json), as_json=as_json)


@sessions_app.command("fork")
def fork_session(
    session: SessionId,
    at: Annotated[
        int | None,
        typer.Option("--at", min=0, max=INDEX_MAX, help="The last turn to share. Default: the newest that is closed."),
    ] = None,
    name: Annotated[str, typer.Option(help="A name for the new session.")] = "",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Make a new session that goes on from a turn of another one."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.fork_session(session, at, name, as_json=as_json), as_json=as_json)


@sessions_app.command("delete")
def delete_session(
    session: SessionId,
    force: Annotated[bool, typer.Option("--force", help="Also while an inference has not ended.")] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Delete a session with its turns and its events."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.delete_session(session, force=force, as_json=as_json), as_json=as_json)


@turns_app.command("list")
def list_turns(session: SessionId, target: Target = TARGET, as_json: Json = False) -> None:
    """List the turns of a session."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.list_turns(session, as_json=as_json), as_json=as_json)


@turns_app.command("show")
def show_turn(
    session: SessionId,
    index: Annotated[int | None, typer.Argument(min=0, max=INDEX_MAX, help="Which turn. Default: the newest.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what this turn has that its parent has not.")] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Show a turn with its blocks."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.show_turn(session, index, "delta" if new else "full", as_json=as_json), as_json=as_json)


@profiles_app.command("list")
def list_profiles(target: Target = TARGET, as_json: Json = False) -> None:
    """List the profiles, by name."""
    from turnwire_client.cli import _profiles, _run

    _run.run(target, _profiles.list_profiles(as_json=as_json), as_json=as_json)


@profiles_app.command("show")
def show_profile(
    name: Annotated[
        str | None, typer.Argument(help="Which one. Default: the server's.", callback=_options.given)
    ] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Show a profile: what is in effect, and what it was made of."""
    from turnwire_client.cli import _profiles, _run

    _run.run(target, _profiles.show_profile(name or "", as_json=as_json), as_json=as_json)


@app.command()
def engines(target: Target = TARGET, as_json: Json = False) -> None:
    """List the engines of a server, by name."""
    from turnwire_client.cli import _profiles, _run

    _run.run(target, _profiles.list_engines(as_json=as_json), as_json=as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where the store goes.")] = Path(".turnwire-demo"),
    as_json: Json = False,
) -> None:
    """Start a server, stream one inference, show how to go on, stop the server."""
    from turnwire_client.cli._demo import demo as demonstrate

    demonstrate(directory, as_json=as_json)
