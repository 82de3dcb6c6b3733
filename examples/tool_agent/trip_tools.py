"""Tools of the server: typed functions. Their docstrings, types and constraints are what the model is told."""

from typing import Annotated

from pydantic import BaseModel, Field

from turnwire_server.tools.function import ToolFailure, tool


class Weather(BaseModel):
    """The weather of one day."""

    celsius: int
    rain: bool


# A real tool would ask a service here.
FORECASTS = {
    "Lisbon": [Weather(celsius=17, rain=False), Weather(celsius=16, rain=True)],
    "Oslo": [Weather(celsius=-1, rain=False), Weather(celsius=-3, rain=True)],
}


@tool(is_idempotent=True)
async def get_weather(
    city: str, days: Annotated[int, Field(ge=1, le=2, description="how many days from today")] = 1
) -> list[Weather]:
    """Say what the weather of a city will be, day by day."""
    if city not in FORECASTS:
        raise ToolFailure(f"there is no forecast for {city}; there is one for {', '.join(FORECASTS)}")
    return FORECASTS[city][:days]


@tool(is_idempotent=True)
def packing_list(coldest_celsius: int, rain: bool) -> list[str]:
    """Say what to pack."""
    return [*(["coat", "boots"] if coldest_celsius < 5 else ["jacket"]), *(["umbrella"] if rain else [])]
