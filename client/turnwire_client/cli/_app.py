"""The commands, their options and their help."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from turnwire_client.cli import _options
from turnwire_client.cli._groups import profiles_app, sessions_app, steps_app, turns_app
from turnwire_client.cli._options import (
    SEQUENCE_MAX,
    TARGET,
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
    epilog="Exit codes: 0 done, 1 refused, 2 wrong usage, 3 server not reached, 4 FAILED, 5 CANCELLED, 6 timeout, 7 it"
    " waits for answers or for the release of a pause.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(sessions_app, name="sessions")
app.add_typer(turns_app, name="turns")
app.add_typer(steps_app, name="steps")
app.add_typer(profiles_app, name="profiles")

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
    tools: Annotated[
        Path | None, typer.Option(help="A JSON file: a list of tools that you execute yourself; see `answer`.")
    ] = None,
    output_schema: Annotated[
        Path | None, typer.Option(help="A JSON file: the JSON Schema that the answer has to satisfy.")
    ] = None,
    record_snapshots: Annotated[
        bool, typer.Option("--record-snapshots", help="Record the turn between phases; see `turns snapshots`.")
    ] = False,
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
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show it up to its end, or to where it needs you: exit code 7.")
    ] = False,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Start an inference. It goes on by itself, unless the server refuses it, or it needs an answer of yours."""
    from turnwire_client.cli import _inferences, _run

    command = _inferences.start(
        _run.guarded(target, sys.stdin.read, as_json=as_json) if text == "-" else text,
        session or "",
        system=system,
        profile=profile or "",
        model=model or "",
        tools=_options.read_tools(tools),
        output_schema=_options.read_json(output_schema),
        record_snapshots=record_snapshots,
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
    approve: Annotated[
        Literal["all", "none"] | None,
        typer.Option(help="Approve, or deny, every tool call that needs approval. Default: ask; if piped, end with 7."),
    ] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Talk: Ctrl-C stops an answer and keeps the session, a second one leaves. Reads stdin when it is piped.

    Asks about tool calls that need approval or are yours to execute, and about pauses.
    """
    from turnwire_client.cli._chat import chat as talk

    names = {"system": system, "profile": profile or "", "model": model or ""}
    talk(target, session or "", **names, approve=approve, as_json=as_json)


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
    """Wait for the end of an inference and show its answer; or what it waits for, and end with 7."""
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


@app.command()
def answer(
    inference: InferenceId,
    approve: Annotated[
        list[str] | None, typer.Option(metavar="CALL[=ARGS]", help="Approve, perhaps with other arguments, as JSON.")
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(metavar="CALL[=REASON]", help="Deny; the model is told why.")
    ] = None,
    result: Annotated[
        list[str] | None, typer.Option(metavar="CALL=JSON", help="The result of a tool of yours.")
    ] = None,
    error: Annotated[list[str] | None, typer.Option(metavar="CALL=TEXT", help="Why a tool of yours failed.")] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Answer tool calls, by their ids; each option may be given several times. All are taken, or none is."""
    from turnwire_client.cli import _answers, _run

    told = [
        _options.answers(approve or (), needed=False, is_value_json=True),
        _options.answers(deny or (), needed=False, is_value_json=False),
        _options.answers(result or (), needed=True, is_value_json=True),
        _options.answers(error or (), needed=True, is_value_json=False),
    ]
    calls = [call for each in told for call in each]
    if len(set(calls)) != len(calls) or not calls:
        raise typer.BadParameter("give one answer per call, and at least one")
    _run.run(target, _answers.answer(inference, *told, as_json=as_json), as_json=as_json)


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


@app.command()
def conformance(
    address: Annotated[str, typer.Argument(metavar="[HOST:PORT]", help="Where the server listens.")] = TARGET,
    topic: Annotated[list[str] | None, typer.Option(help="Only the cases of this topic; may be given again.")] = None,
    case: Annotated[
        list[str] | None, typer.Option(help="Only the cases whose name has this in it; may be given again.")
    ] = None,
    profile: Annotated[str, typer.Option(help="The profile whose engine is the scripted one.")] = "scripted",
    arrangement: Annotated[
        str, typer.Option(help="How the server is set up; empty: as it is by default. See docs/conformance.md.")
    ] = "",
    known_failing: Annotated[
        Path | None, typer.Option(help="A file with the cases that are known to fail, and why.", dir_okay=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Where to write the outcomes as JUnit XML.")] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Show the cases and what they prove; run none.")] = False,
    as_json: Json = False,
) -> None:
    """Prove that a server keeps the contract, in any language: the cases of the conformance suite, over TCP."""
    from turnwire_client.cli import _conformance
    from turnwire_conformance.runner import Target as Server

    wanted = _conformance.Wanted(topic or (), case or (), known_failing, junit)
    if only_list:
        _conformance.list_cases(wanted, as_json=as_json)
    else:
        _conformance.prove(Server(address, profile, arrangement), wanted, as_json=as_json)


@app.command("client-conformance")
def client_conformance(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND", help="Starts the adapter.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only the cases of this topic; may be given again.")] = None,
    case: Annotated[
        list[str] | None, typer.Option(help="Only the cases whose name has this in it; may be given again.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many cases at a time.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that an answer may take, where the case does not say.")
    ] = 20.0,
    known_failing: Annotated[
        Path | None, typer.Option(help="A file with the cases that are known to fail, and why.", dir_okay=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Where to write the outcomes as JUnit XML.")] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Show the cases and what they prove; run none.")] = False,
    as_json: Json = False,
) -> None:
    """Hold an SDK to the contract, in any language: the cases for clients, through the SDK's adapter."""
    from turnwire_client.cli import _client_conformance
    from turnwire_client.cli._conformance import Wanted

    wanted = Wanted(topic or (), case or (), known_failing, junit)
    if only_list:
        _client_conformance.list_cases(wanted, as_json=as_json)
    else:
        _client_conformance.prove(command or (), wanted, jobs=jobs, answer_seconds_max=timeout, as_json=as_json)
