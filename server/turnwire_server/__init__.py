"""turnwire_server: sessions, inferences and their event log, behind the contract of proto/turnwire/v1.

Rooms; each imports only rooms below it:

    __main__    `python -m turnwire_server`: settings, signals
    bootstrap   puts a server together; the only file that names implementations
    rpc         the contract over gRPC
    runtime     the verbs: start, wait, cancel, run, recover
    events      the event log as watchers see it
    middleware  what a profile puts around each engine call
    tools       the tools that the server itself executes
    stores      where everything lives: SQLite, memory
    engines     what produces model output
    wire        the nouns to and from protobuf
    domain      the nouns
    config      settings and profiles
    telemetry   logs
"""
