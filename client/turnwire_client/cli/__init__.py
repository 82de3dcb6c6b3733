"""The command line `turnwire`.

With `--json` a command writes one JSON object to stdout and nothing else, and a stream writes one object per line;
field names are those of the contract, and fields that are zero or empty are written too. What goes wrong is told on
stderr: in words, or with `--json` as one object,

    {"error": {"reason": "TURN_NOT_FOUND", "code": "NOT_FOUND", "message": "...", "metadata": {"index": "7", ...}}}

with the reason of the contract's catalogue, empty for what is not from there, and the name of a gRPC status code. Exit
codes, with `--json` and without:

    0    done
    1    the server refused, or broke the contract; stderr names the reason
    2    the command line is wrong
    3    the server cannot be reached
    4    the inference FAILED
    5    the inference was CANCELLED
    6    the inference has not ended within --timeout
    7    the inference waits: for answers to tool calls, or for the release of a pause
    130  interrupted

With 7 and `--json`, the last object on stdout is

    {"inference": {...}, "required": {"calls": [...], "approvals": [...]}}

or has a "pause" instead of "required"; `answer` and `steps release` are what it waits for.

    _app                 the commands and their options
    _groups              those in groups: sessions, turns, steps, profiles
    _options             what an option may be
    _run                 connects and runs a command
    _failure             words, JSON and exit codes for what goes wrong
    _output              JSON, tables, and what a person sees of an event
    _sessions            what sessions and turns do
    _profiles            what profiles and engines do
    _inferences          what start, wait, cancel and watch do
    _answers             what answer, steps and turns snapshots do
    _waiting             what an inference waits for, told
    _chat                the conversation
    _person              somebody at the terminal, asked
    _serve               starting a server
    _demo                the demonstration
    _conformance         a server held to the contract
    _client_conformance  an SDK held to the contract
"""

import sys


def main() -> None:
    """The entry point. Imports what it needs when it is called, so that importing this package costs nothing."""
    from turnwire_client.cli._app import app

    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"] or "--json" not in arguments:
        app()
        return
    from turnwire_client.cli._options import UsageError

    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        from turnwire_client.cli._failure import USAGE, print_error

        print_error("INVALID_ARGUMENT", error.format_message())
        sys.exit(USAGE)
