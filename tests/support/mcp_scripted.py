"""An MCP server over stdio that does what the name of a tool says, for what real ones do not do when a test needs it.

A program of the standard library alone: `python mcp_scripted.py '[{"name": "another"}]'`, the argument being tools that
it offers besides its own.
"""

import json
import os
import sys
from typing import Any

Json = dict[str, Any]

heard: list[str] = []
OWN: list[Json] = [
    {"name": "echo"},
    {"name": "env"},
    {"name": "heard"},
    {"name": "grow"},
    {"name": "die"},
    {"name": "silent"},
    {"name": "act"},
    {"name": "fail", "annotations": {"idempotentHint": True}},
    {"name": "refuse"},
    {"name": "lie", "outputSchema": {"type": "object", "required": ["a"]}},
]
tools: list[Json] = [*OWN, *json.loads(sys.argv[1] if len(sys.argv) > 1 else "[]")]


def send(message: Json) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(name: str, arguments: Json) -> Json | None:
    """Return the result of a call; None for no answer."""
    if name == "act":  # does what the name says that stands in the arguments
        name = {"return": "echo", "hang": "silent"}.get(arguments["deed"], "fail")
    match name:
        case "die":
            sys.stderr.write(f"dying with {os.environ.get('SECRET')}\n")
            sys.stderr.flush()
            os._exit(3)
        case "silent":
            return None
        case "grow":
            tools.append({"name": f"grown-{len(tools)}"})
            send({"method": "notifications/tools/list_changed"})
        case "fail":
            return {"content": [{"type": "text", "text": "it does not work"}], "isError": True}
        case "lie":
            return {"content": [], "structuredContent": {"b": 1}}
        case _:
            pass
    said: object = {"env": dict(os.environ), "heard": heard}.get(name, arguments)
    return {"content": [{"type": "text", "text": json.dumps(said)}]}


def answer(method: str, params: Json) -> Json | None:
    """Return what is the answer to a request, without its id; None for none."""
    match method:
        case "initialize":
            info = {"name": "scripted", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            version = params["protocolVersion"]
            return {"result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}}
        case "tools/list":
            return {"result": {"tools": [{"inputSchema": {"type": "object"}, **tool} for tool in tools]}}
        case "tools/call" if params["name"] == "refuse":
            return {"error": {"code": -32000, "message": f"not today, {os.environ.get('SECRET')}"}}
        case "tools/call":
            result = call(params["name"], params.get("arguments") or {})
            return None if result is None else {"result": result}
        case _:
            return {"error": {"code": -32601, "message": f"there is no {method}"}}


for line in sys.stdin:
    request = json.loads(line)
    heard.append(request["method"])
    if "id" in request and (said := answer(request["method"], request.get("params") or {})):
        send({"id": request["id"], **said})
