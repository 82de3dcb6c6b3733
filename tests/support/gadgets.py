"""Tools of the server for tests: `tools: [{python: support.gadgets}]`. Some answer by themselves, others in a workshop.

The first two are those that aimock asks for.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from support.workshop import ask
from turnwire_server.tools.function import ToolFailure, tool


class Weather(BaseModel):
    """What the weather will be."""

    city: str
    degrees: int
    days: int


@tool(is_idempotent=True)
def get_weather(
    city: Annotated[str, Field(description="where")], days: Annotated[int, Field(ge=1, le=7)] = 1
) -> Weather:
    """Say what the weather will be."""
    if city == "Atlantis":
        msg = "there is no weather in Atlantis"
        raise ToolFailure(msg)
    return Weather(city=city, degrees=len(city), days=days)


@tool
async def get_time(zone: Literal["CET", "UTC"]) -> str:
    """Say what time it is."""
    return f"noon, {zone}"


@tool
async def charge(amount: int) -> object:
    """Take money: not to be done twice."""
    return await ask("charge", amount=amount)


@tool(is_idempotent=True)
async def look_up(key: str) -> object:
    """Look something up: may be done again."""
    return await ask("look_up", key=key)


@tool(approval_required=True)
async def erase(path: str) -> object:
    """Erase something, if a person approves."""
    return await ask("erase", path=path)
