"""Structured logs, to standard error.

Every line that is written while an rpc or an attempt is served has its `session_id` and `inference_id`: they are
bound to the task, not passed along.
"""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, cast

import structlog
from structlog.contextvars import bound_contextvars
from structlog.typing import FilteringBoundLogger, Processor

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]


def configure_logs(format: Format, level: Level) -> None:  # noqa: A002 - the name of the setting
    """Set up the process's logs; records of the standard library's loggers take the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
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


@contextmanager
def bound_to(session_id: str = "", inference_id: str = "", **more: str) -> Generator[None]:
    """Give every line that the present task writes inside these identities; empty ones are left out."""
    named = {"session_id": session_id, "inference_id": inference_id, **more}
    with bound_contextvars(**{name: value for name, value in named.items() if value}):
        yield


_drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
