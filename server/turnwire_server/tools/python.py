"""Tools of Python modules: every function of a module that is decorated with `tool`."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnwire_server.tools.base import ServerTool
from turnwire_server.tools.function import FunctionTool


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    module: str = Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")
    only: tuple[str, ...] | None = Field(default=None, min_length=1)


class PythonToolSource:
    """The tools of one module. Settings:

    - `module`: a module that can be imported, `my_app.tools`, whose tools are all that it defines or imports; or one
      function of it, `my_app.tools:get_weather`.
    - `only`: the names of the tools to take; all when it is left out.

    Importing runs the module. Errors: ValueError when there is nothing to be had; the message says what to do.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        try:
            self._settings = _Settings.model_validate(dict(settings))
        except ValidationError as error:
            raise ValueError(explain("the settings of python tools", error)) from None
        self._tools = _load(self._settings.module, self._settings.only)

    @property
    def name(self) -> str:
        """See ToolSource."""
        return self._settings.module

    async def list_tools(self) -> Sequence[ServerTool]:
        """See ToolSource."""
        return self._tools

    async def aclose(self) -> None:
        """See ToolSource. There is nothing to give back."""


def explain(what: str, error: ValidationError) -> str:
    """Say what is wrong with settings. Their values are not shown: they may be secrets."""
    each = error.errors(include_url=False, include_context=False, include_input=False)
    return f"{what}: not valid: " + "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in each
    )


def _load(path: str, only: Sequence[str] | None) -> tuple[ServerTool, ...]:
    module_name, _, function_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a module raises when it is run
        msg = f"cannot import {module_name}: {type(error).__name__}: {error}; is it installed, or on PYTHONPATH?"
        raise ValueError(msg) from error
    found: list[FunctionTool[..., Any]] = []
    for name, value in cast("dict[str, object]", vars(module)).items():
        if isinstance(value, FunctionTool) and function_name in ("", name):
            one = cast("FunctionTool[..., Any]", value)
            found += [one] if not any(one is other for other in found) else []  # one that has two names is one
    if not found:
        what = f"there is no tool {function_name} in {module_name}" if function_name else f"{module_name} has no tools"
        msg = f"{what}; decorate a function with `tool` of turnwire_server.tools.function"
        raise ValueError(msg)
    names = [one.definition.tool.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"{module_name} has several tools of the name {', '.join(twice)}; rename with @tool(name=...)"
        raise ValueError(msg)
    if missing := sorted(set(only or ()) - set(names)):
        msg = f"{path} has no tool {', '.join(missing)}, which `only` names; it has {', '.join(sorted(names))}"
        raise ValueError(msg)
    return tuple(one for one in found if only is None or one.definition.tool.name in only)
