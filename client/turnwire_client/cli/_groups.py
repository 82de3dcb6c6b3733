"""The commands in groups: sessions, turns, steps and profiles, their options and their help."""

from typing import Annotated, Literal

import typer

from turnwire_client.cli import _options
from turnwire_client.cli._options import INDEX_MAX, TARGET, InferenceId, Json, SessionId, Target

sessions_app = typer.Typer(help="List, show, fork and delete sessions.", no_args_is_help=True)
turns_app = typer.Typer(help="List and show the turns of a session, and snapshots of one.", no_args_is_help=True)
steps_app = typer.Typer(help="Step mode: pause inferences between their steps, and release them.", no_args_is_help=True)
profiles_app = typer.Typer(help="List and show the profiles of a server.", no_args_is_help=True)


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


@turns_app.command("snapshots")
def list_turn_snapshots(
    inference: InferenceId,
    phase: Annotated[
        Literal["pre_inference", "post_inference", "post_tools", "final"] | None, typer.Option(help="Only this one.")
    ] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """List what the turn of an inference was between its phases, if that was recorded."""
    from turnwire_client.cli import _answers, _run

    _run.run(target, _answers.list_turn_snapshots(inference, phase, as_json=as_json), as_json=as_json)


@steps_app.command("on")
def steps_on(
    session: SessionId,
    deadline: Annotated[
        float | None,
        typer.Option(help="Seconds that a pause lasts if nobody releases it. Default: 30.", callback=_options.duration),
    ] = None,
    deadline_action: Annotated[Literal["continue", "abort"], typer.Option(help="What happens then.")] = "continue",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Pause the inferences of a session after each engine call and each batch of tools, the present one included."""
    from turnwire_client.cli import _answers, _run

    command = _answers.set_step_mode(session, True, deadline, deadline_action, as_json=as_json)
    _run.run(target, command, as_json=as_json)


@steps_app.command("off")
def steps_off(session: SessionId, target: Target = TARGET, as_json: Json = False) -> None:
    """Do not pause them any more; a pause is released."""
    from turnwire_client.cli import _answers, _run

    _run.run(target, _answers.set_step_mode(session, False, None, "continue", as_json=as_json), as_json=as_json)


@steps_app.command("list")
def list_pauses(
    session: Annotated[
        str | None, typer.Option("--session", help="Only those of this session.", callback=_options.given)
    ] = None,
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """List the pauses that wait for release, that of the oldest inference first."""
    from turnwire_client.cli import _answers, _run

    _run.run(target, _answers.list_pauses(session or "", as_json=as_json), as_json=as_json)


@steps_app.command("release")
def release_pause(
    pause: Annotated[str, typer.Argument(metavar="PAUSE", help="The id of the pause.", callback=_options.named)],
    action: Annotated[
        Literal["continue", "step", "abort"],
        typer.Argument(help="Go on without further pauses, go on to the next one, or end the inference."),
    ] = "continue",
    target: Target = TARGET,
    as_json: Json = False,
) -> None:
    """Release a pause."""
    from turnwire_client.cli import _answers, _run

    _run.run(target, _answers.release_pause(pause, action, as_json=as_json), as_json=as_json)


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
