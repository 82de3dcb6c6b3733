"""The commands, their options and their help."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

app = typer.Typer(
    name="turnwire",
    help="Sessions, inferences and their events, from the command line.",
    epilog="Exit codes: 0 done, 1 refused, 2 wrong usage, 3 server not reached, 4 FAILED, 5 CANCELLED, 6 timeout.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
sessions_app = typer.Typer(help="List, show and delete sessions.", no_args_is_help=True)
turns_app = typer.Typer(help="List and show the turns of a session.", no_args_is_help=True)
app.add_typer(sessions_app, name="sessions")
app.add_typer(turns_app, name="turns")

Target: TypeAlias = Annotated[str, typer.Option("--target", envvar="TURNWIRE_TARGET", help="host:port of the server.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object, or one per line, and nothing else.")]
SessionId: TypeAlias = Annotated[str, typer.Argument(metavar="SESSION", help="The session_id.")]
SessionOption: TypeAlias = Annotated[str, typer.Option("--session", help="The session_id. Default: a new session.")]
Profile: TypeAlias = Annotated[str, typer.Option("--profile", help="Default: the session's, or the server's.")]
Model: TypeAlias = Annotated[str, typer.Option("--model", help="Default: the profile's.")]
System: TypeAlias = Annotated[str, typer.Option("--system", help="An instruction to the model, before the text.")]

TARGET = "127.0.0.1:7450"
PASS_THROUGH: dict[Any, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=PASS_THROUGH, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Run a server; all arguments are the server's: serve --help."""
    from turnwire_client.cli._serve import serve as become_server

    become_server(context.args)


@app.command()
def start(
    text: Annotated[str, typer.Argument(help="What the user says; - reads stdin. Nothing: go on from there.")] = "",
    session: SessionOption = "",
    system: System = "",
    profile: Profile = "",
    model: Model = "",
    key: Annotated[str, typer.Option("--key", help="Idempotency key: with it, a repeat starts nothing new.")] = "",
    conflict: Annotated[
        Literal["reject", "enqueue", "interrupt", "rollback"], typer.Option(help="What to do when the session is busy.")
    ] = "reject",
    timeout: Annotated[float | None, typer.Option(help="Seconds that the inference may take.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it up to its end.")] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Start an inference. It goes on by itself, unless the server refuses it."""
    from turnwire_client.cli import _run, _sessions

    command = _sessions.start(
        sys.stdin.read() if text == "-" else text,
        session,
        system=system,
        profile=profile,
        model=model,
        key=key,
        conflict=conflict,
        timeout=timeout,
        follow=follow,
        as_json=as_json,
    )
    _run.run(target, command)


@app.command()
def chat(
    session: SessionOption = "",
    system: System = "",
    profile: Profile = "",
    model: Model = "",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Talk: Ctrl-C stops an answer and keeps the session, a second one leaves. Reads stdin when it is piped."""
    from turnwire_client.cli._chat import chat as talk

    talk(target, session, system=system, profile=profile, model=model, as_json=as_json)


@app.command()
def watch(
    session: SessionId,
    inference: Annotated[str, typer.Option("--inference", help="Only events of this inference_id.")] = "",
    after: Annotated[int | None, typer.Option("--after", min=0, help="Begin after this sequence.")] = None,
    log: Annotated[str, typer.Option("--log", help="The log token that came with the sequence.")] = "",
    live: Annotated[bool, typer.Option("--live", help="Begin with what happens from now on.")] = False,
    until: Annotated[
        Literal["follow", "inference_end", "caught_up"], typer.Option(help="When to end by itself.")
    ] = "follow",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Show the events of a session, each once, also across cuts and restarts of the server."""
    from turnwire_client.cli import _run, _sessions

    if until == "inference_end" and not inference:
        raise typer.BadParameter("inference_end needs --inference", param_hint="--until")
    if live and after is not None:
        raise typer.BadParameter("not together with --after", param_hint="--live")
    begin: int | Literal["live", "beginning"] = "live" if live else "beginning" if after is None else after
    _run.run(target, _sessions.watch(session, inference, begin, until, log, as_json=as_json, target=target))


@app.command()
def wait(
    inference: Annotated[str, typer.Argument(metavar="INFERENCE", help="The inference_id.")],
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most; 0 only looks.")] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Wait for the end of an inference and show its answer."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.wait(inference, timeout, as_json=as_json))


@app.command()
def cancel(
    inference: Annotated[str, typer.Argument(metavar="INFERENCE", help="The inference_id.")] = "",
    session: Annotated[str, typer.Option("--session", help="Instead: whatever runs in this session.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Request that an inference stops."""
    from turnwire_client.cli import _run, _sessions

    if bool(inference) == bool(session):
        raise typer.BadParameter("name either an INFERENCE or a --session")
    _run.run(target, _sessions.cancel(inference, session, reason, as_json=as_json))


@sessions_app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """List sessions, the newest first."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.list_sessions(limit, as_json=as_json))


@sessions_app.command("show")
def show_session(session: SessionId, target: Target = TARGET, as_json: Json = False) -> None:
    """Show one session."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.show_session(session, as_json=as_json))


@sessions_app.command("delete")
def delete_session(
    session: SessionId,
    force: Annotated[bool, typer.Option("--force", help="Also while an inference has not ended.")] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Delete a session with its turns and its events."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.delete_session(session, force=force, as_json=as_json))


@turns_app.command("list")
def list_turns(session: SessionId, target: Target = TARGET, as_json: Json = False) -> None:
    """List the turns of a session."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.list_turns(session, as_json=as_json))


@turns_app.command("show")
def show_turn(
    session: SessionId,
    index: Annotated[int | None, typer.Argument(min=0, help="Which turn. Default: the newest.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what this turn has that its parent has not.")] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Show a turn with its blocks."""
    from turnwire_client.cli import _run, _sessions

    _run.run(target, _sessions.show_turn(session, index, "delta" if new else "full", as_json=as_json))


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where the store goes.")] = Path(".turnwire-demo"),
    as_json: Json = False,
) -> None:
    """Start a server, stream one inference, show how to go on, stop the server."""
    from turnwire_client.cli._demo import demo as demonstrate

    demonstrate(directory, as_json=as_json)
