"""`python -m turnwire_server`, which is also `turnwire serve`: settings, signals, exit codes.

Standard output gets exactly one line, `listening on HOST:PORT`, once requests are served; logs go to standard error.
The exit code is 0 after SIGTERM or SIGINT, 2 when a setting is wrong, and 1 for anything else.
"""

import asyncio
import gc
import os
import signal
import sys

# What gRPC itself writes to standard error repeats, less clearly, what we say; it reads this once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from turnwire_server.bootstrap import Server, running_server
from turnwire_server.config.error import ConfigError
from turnwire_server.config.settings import Settings, load_settings
from turnwire_server.telemetry.logs import configure_logs

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run a server until it is told to stop."""
    try:
        settings = load_settings(sys.argv[1:])
        configure_logs(settings.log_format, settings.log_level)
        asyncio.run(_serve(settings))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"turnwire: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


async def _serve(settings: Settings) -> None:
    signals = _Signals()
    try:
        async with running_server(settings) as server:
            signals.server = server
            gc.collect()
            gc.freeze()  # what is there now stays; each full collection would go through it, for some 40 ms
            sys.stdout.write(f"listening on {server.address}\n")
            sys.stdout.flush()
            await signals.stopping.wait()
    except asyncio.CancelledError:  # stopped before it served anything
        return
    if server.abandoned:
        # A task that swallows its cancellation would keep the loop from closing for ever. Everything is stored already.
        sys.stderr.flush()
        os._exit(0)


class _Signals:
    """The first signal drains, or ends the start; a second one does not wait for what still runs."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.stopping = asyncio.Event()
        self._task = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    def _receive(self) -> None:
        if self.server is None:
            if self._task:
                self._task.cancel()
        elif self.stopping.is_set():
            self.server.hurry()
        self.stopping.set()


if __name__ == "__main__":
    sys.exit(main())
