"""Starts an inference that asks for approval, and decides by a rule. A person can be asked in the same place.

Nothing waits in a process meanwhile: the server may be restarted, and this program as well; started again with
TURNWIRE_INFERENCE and TURNWIRE_SESSION it goes on with what is not decided yet.
"""

# ruff: noqa: T201 - an example prints

import asyncio
import json
import os

from turnwire.v1.tool_pb2 import ToolApproval, ToolCall, ToolDenial
from turnwire_client import Client, InferenceHandle


async def approve(call: ToolCall) -> ToolApproval | ToolDenial:
    """Mails may go to our own people, with a note; the model is told why others are not sent."""
    args = json.loads(call.args)
    if args["to"].endswith("@example.com"):
        print(f"approved: {call.name} to {args['to']}")
        return ToolApproval(args=json.dumps(args | {"text": args["text"] + " (Written by a machine.)"}))
    print(f"denied:   {call.name} to {args['to']}")
    return ToolDenial(reason="only to example.com")


async def begin(client: Client) -> InferenceHandle:
    inference_id, session_id = (os.environ.get(f"TURNWIRE_{name}", "") for name in ("INFERENCE", "SESSION"))
    if inference_id:
        return client.inference(inference_id, session_id)
    return await client.start_inference(input="Send Ana the invoice, and tell everyone our prices.", profile="clerk")


async def main() -> None:
    async with Client.connect(os.environ.get("TURNWIRE_TARGET", "127.0.0.1:7450")) as client:
        handle = await begin(client)
        result = await handle.run_tools({}, approve=approve)  # tools of this program would be in the mapping
        print(result.text)


asyncio.run(main())
