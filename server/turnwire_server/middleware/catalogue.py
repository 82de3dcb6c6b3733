"""The names that a profile may use for middleware, and what stands for each."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

from pydantic import ValidationError

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.profile import MiddlewareUse
from turnwire_server.middleware.agent_mode import AgentMode, AgentModeSettings
from turnwire_server.middleware.base import Middleware
from turnwire_server.middleware.log_calls import LogCalls, LogCallsSettings
from turnwire_server.middleware.sql_tool import SqlTool, SqlToolSettings
from turnwire_server.middleware.system_prompt import SystemPrompt, SystemPromptSettings
from turnwire_server.middleware.thinking_mode import ThinkingMode, ThinkingModeSettings
from turnwire_server.middleware.tool_result_reorder import ToolResultReorder, ToolResultReorderSettings

Settings = Mapping[str, object]
Build = Callable[[Settings, Clock], Middleware]


def _reorder(settings: Settings, _clock: Clock) -> Middleware:
    ToolResultReorderSettings.model_validate(settings)
    return ToolResultReorder()


CATALOGUE: Mapping[str, Build] = MappingProxyType(
    {
        "agent_mode": lambda settings, _: AgentMode(AgentModeSettings.model_validate(settings)),
        "log_calls": lambda settings, clock: LogCalls(LogCallsSettings.model_validate(settings), clock),
        "sql_tool": lambda settings, _: SqlTool(SqlToolSettings.model_validate(settings)),
        "system_prompt": lambda settings, _: SystemPrompt(SystemPromptSettings.model_validate(settings)),
        "thinking_mode": lambda settings, _: ThinkingMode(ThinkingModeSettings.model_validate(settings)),
        "tool_result_reorder": _reorder,
    }
)

_PORT = ("name", "tools", "call", "aclose")


def build_middleware(uses: Sequence[MiddlewareUse], clock: Clock) -> tuple[Middleware, ...]:
    """Return the middleware of a profile, in its order; nothing has to be given back before the first call.

    A name with a dot or a colon is that of a class or a function in an application's own module, as in
    `my_app.audit:Audit`; it is called with the settings as keyword arguments, and returns a Middleware.

    Errors: ValueError, which names the middleware, the field and the rule, and shows no setting's value.
    """
    return tuple(_build(use, clock) for use in uses)


def _build(use: MiddlewareUse, clock: Clock) -> Middleware:
    try:
        if "." in use.name or ":" in use.name:
            return _load(use)
        build = CATALOGUE.get(use.name)
        if build is None:
            msg = f"it is none of {', '.join(sorted(CATALOGUE))}, nor a name like my_app.module:Class"
            raise ValueError(msg)
        return build(dict(use.settings), clock)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        msg = f"middleware {use.name}: {problems}"
        raise ValueError(msg) from None
    except ValueError as error:
        msg = f"middleware {use.name}: {error}"
        raise ValueError(msg) from error


def _load(use: MiddlewareUse) -> Middleware:
    try:
        build = cast("Callable[..., object]", pkgutil.resolve_name(use.name))
        built = build(**use.settings)
    except ValidationError:
        raise
    except Exception as error:  # of somebody else's module: whatever it is, the profile cannot be used
        msg = f"it cannot be loaded: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    if missing := [member for member in _PORT if not hasattr(built, member)]:
        msg = f"what it returns is no Middleware: it has no {missing[0]}"
        raise ValueError(msg)
    return cast("Middleware", built)
