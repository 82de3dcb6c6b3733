"""The command line `turnwire`.

With `--json` a command writes one JSON object to stdout and nothing else, and a stream writes one object per line;
field names are those of the contract. What goes wrong is told on stderr. Exit codes:

    0    done
    1    the server refused, or broke the contract; stderr names the reason
    2    the command line is wrong
    3    the server cannot be reached
    4    the inference FAILED
    5    the inference was CANCELLED
    6    the inference has not ended within --timeout
    130  interrupted

    _app       the commands and their options
    _run       connects, runs a command, turns errors into exit codes
    _output    JSON, tables, and what a person sees of an event
    _sessions  what sessions, turns, start, wait, cancel and watch do
    _chat      the conversation
    _serve     starting a server
    _demo      the demonstration
"""


def main() -> None:
    """The entry point. Imports what it needs when it is called, so that importing this package costs nothing."""
    from turnwire_client.cli._app import app

    app()
