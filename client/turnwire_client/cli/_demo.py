"""`turnwire demo`: a server, one inference that streams, and how to go on."""

import os
import shlex
from pathlib import Path

from turnwire.v1.inference_pb2 import Inference
from turnwire_client._client import Client
from turnwire_client.cli import _output as out
from turnwire_client.cli import _run
from turnwire_client.cli._inferences import Follower
from turnwire_client.cli._serve import LocalServer, require_server

QUESTION = "What happens to my answer if the connection breaks while you are writing it?"

THINKING = (
    "They ask about resuming. Every piece of this answer is an event in the session's log, and it is stored before"
    " anyone sees it. So: nothing is lost."
)

ANSWER = (
    "Nothing. I write into the log of this session, and every event in it has a number. A client that comes back says"
    " which number it saw last and gets the rest: each event once, in order, none missing. That holds when the network"
    " breaks, when the server restarts, and tomorrow as well."
)

SCRIPT = {
    "pace": "0.055s",
    "delta_length": 8,
    "calls": [
        {
            "steps": [{"thinking": {"text": THINKING}}, {"text": {"text": ANSWER}}],
            "usage": {"input_tokens": 17, "output_tokens": 88, "reasoning_tokens": 29},
        }
    ],
}


def demo(directory: Path, *, as_json: bool) -> None:
    """Starts a server on a file in the directory, streams one inference, and stops the server."""
    require_server(as_json=as_json)
    directory.mkdir(parents=True, exist_ok=True)
    store = directory / "turnwire.db"
    if not as_json:
        out.print_line(
            f"Starting a server on {os.path.relpath(store)} with the scripted engine (no model is asked) ..."
        )
    with LocalServer(store, directory / "server.log", as_json=as_json) as server:
        if not as_json:
            out.print_line(f"It listens on {server.target}.\n")
            out.print_line(f"> {QUESTION}\n", "bold")
        inference = _run.run(server.target, lambda client: _ask(client, as_json=as_json), as_json=as_json)
    commands = _commands(store, inference.session_id)
    if as_json:
        out.print_json({"inference": out.to_dict(inference), "commands": commands})
        return
    out.print_line()
    out.print_inference(inference)
    out.print_line("\nThe server is stopped, and everything is in the file. To go on, serve the file again:\n")
    out.print_line(f"  {commands[0]}\n")
    out.print_line("and in another terminal look at the session, see its events again, or talk to it:\n")
    for command in commands[1:]:
        out.print_line(f"  {command}")


async def _ask(client: Client, *, as_json: bool) -> Inference:
    session = await client.create_session(display_name="demo")
    handle = await client.start_inference(
        session.session_id, QUESTION, profile="scripted", engine_options={"script": SCRIPT}
    )
    return await Follower(client, handle, as_json=as_json).follow()


def _commands(store: Path, session_id: str) -> list[str]:
    program = out.program()
    return [
        f"{program} serve --store {shlex.quote(os.path.relpath(store))}",
        f"{program} turns show {session_id}",
        f"{program} watch {session_id} --until caught_up",
        f"{program} chat --session {session_id}",
    ]
