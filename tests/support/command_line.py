"""The command line, as a shell sees it: a process, its output and its exit code; with a terminal, or without."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

CLI = [sys.executable, "-m", "turnwire_client.cli"]
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
SECONDS_MAX = 60
AGAIN_SECONDS = 5


def turnwire(
    *arguments: str, target: str = "", stdin: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TURNWIRE_TARGET": target} if target else dict(os.environ)
    return subprocess.run(
        [*CLI, *arguments],
        env=environment,
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def as_json(*arguments: str, target: str, code: int = 0) -> dict[str, Any]:
    """The one object that a command wrote to stdout; nothing else was."""
    done = turnwire(*arguments, "--json", target=target)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Terminal:
    """A process on a terminal, read as far as some text."""

    def __init__(self, *arguments: str, target: str, columns: int = 200) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests in the background of a shell, whose Ctrl-C is not
            signal.signal(signal.SIGINT, signal.default_int_handler)  # for them: what they start would inherit that
        self._end, child = pty.openpty()
        environment = {**os.environ, "TURNWIRE_TARGET": target, "TERM": "dumb", "COLUMNS": str(columns)}
        self.process = subprocess.Popen([*CLI, *arguments], stdin=child, stdout=child, stderr=child, env=environment)
        os.close(child)
        self._written = ""

    def read_until(self, text: str) -> str:
        """What was written up to this text, which the test's timeout bounds."""
        while text not in self._written:
            try:
                self._written += os.read(self._end, 4096).decode(errors="replace")
            except OSError:  # the process has ended
                break
        before, found, self._written = self._written.partition(text)
        assert found, before
        return before + found

    def read_all(self) -> str:
        """What was written up to the end of the process."""
        while True:
            try:
                read = os.read(self._end, 4096).decode(errors="replace")
            except OSError:
                return self._written
            self._written += read

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, while it works."""
        self.process.send_signal(signal.SIGINT)

    def interrupt_prompt(self) -> None:
        """Ctrl-C, at a prompt: again if nothing comes of it, since readline misses one that comes before it reads."""
        self.interrupt()
        while not select.select([self._end], [], [], AGAIN_SECONDS)[0]:
            self.interrupt()

    def wait(self) -> int:
        code = self.process.wait(SECONDS_MAX)
        os.close(self._end)
        return code
