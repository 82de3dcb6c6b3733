"""Structured logs, to standard error.

Every line that is written while an rpc or an attempt is served has its `session_id` and `inference_id`: they are
bound to the task, not passed along.
"""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Literal, TextIO, cast

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars
from structlog.typing import FilteringBoundLogger, Processor

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]


# Without the local variables of the frames: those have what users said, and keys.
_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


class _LossyStream:
    """Loses what cannot be written, as on a full disk: whoever writes a line has something else to do."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure_logs(format: Format, level: Level) -> None:  # noqa: A002 - the name of the setting
    """Set up the process's logs; records of the standard library's loggers take the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer()]
        if format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _LossyStream(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_drop_meta, *last])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


def logger() -> FilteringBoundLogger:
    """Return the logger."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def bind(**named: str) -> None:
    """Add identities to what the lines of the present task have, until the bound_to() around it ends."""
    bind_contextvars(**named)


@contextmanager
def bound_to(session_id: str = "", inference_id: str = "", **more: str) -> Generator[None]:
    """Give every line that the present task writes inside these identities; empty ones are left out."""
    named = {"session_id": session_id, "inference_id": inference_id, **more}
    before = get_contextvars()
    clear_contextvars()
    bind_contextvars(**(before | {name: value for name, value in named.items() if value}))
    try:
        yield
    finally:
        clear_contextvars()
        bind_contextvars(**before)


_drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
