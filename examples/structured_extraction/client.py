"""Has a model fill in a pydantic model. The server holds it to the schema, and repairs what misses it."""

# ruff: noqa: T201 - an example prints

import asyncio
import os
from typing import Annotated

from pydantic import BaseModel, Field

from turnwire_client import Client
from turnwire_client.errors import OutputInvalidError

TEXT = "Invoice 2026-117: three chairs, 129 euros altogether."


class Line(BaseModel):
    what: str
    count: Annotated[int, Field(ge=1)]


class Invoice(BaseModel):
    number: str
    total_cents: int
    lines: Annotated[list[Line], Field(min_length=1)]


async def extract(client: Client, text: str) -> Invoice:
    handle = await client.start_inference(
        input=f"Extract the invoice: {text}", profile="extractor", output_schema=Invoice.model_json_schema()
    )
    async for event in handle.events():
        if event.HasField("error"):  # it was sent back, with what is wrong; the inference goes on
            print(f"repaired: {event.error.error.metadata['violation']}")
    return Invoice.model_validate_json((await handle.result()).text)


async def main() -> None:
    async with Client.connect(os.environ.get("TURNWIRE_TARGET", "127.0.0.1:7450")) as client:
        try:
            invoice = await extract(client, TEXT)
        except OutputInvalidError as failed:
            print(f"not an invoice: {failed.message}\n{failed.result.text}")
        else:
            what = ", ".join(f"{line.count} {line.what}" for line in invoice.lines)
            print(f"{invoice.number}: {invoice.total_cents / 100:.2f} for {what}")


asyncio.run(main())
