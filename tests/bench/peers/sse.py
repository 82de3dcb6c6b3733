"""Server-sent events as a user would write them: fastapi on uvicorn, with what `uvicorn[standard]` installs.

    python -m bench.peers.sse         prints `listening on HOST:PORT`

`POST /stream` takes an Order and sends its events, one `data:` line each, made as JSON when it is sent. Each is as long
as our event in a frame; it is as small a JSON object as one would send.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from bench.events import Order

# With it, the line of an event has about EVENT_BYTES.
DELTA_LENGTH = 140

app = FastAPI()


async def events(order: Order) -> AsyncGenerator[str]:
    """Yield what is ordered."""
    await asyncio.sleep(order.seconds_left)
    delta = "x" * DELTA_LENGTH
    for sequence in range(order.events):
        if order.pace_seconds:
            await asyncio.sleep(order.pace_seconds)
        yield f"data: {json.dumps({'sequence': sequence, 'type': 'llm.delta', 'delta': delta})}\n\n"


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Send what is ordered."""
    return StreamingResponse(events(Order.decode(await request.body())), media_type="text/event-stream")


def main() -> None:
    """Serve until the process is ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        print(f"listening on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run([listening])


if __name__ == "__main__":
    main()
