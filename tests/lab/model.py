"""A server that speaks OpenAI's chat completions API, with a script in place of a mind.

The script chooses only the SQL; what it says in the end quotes what the tools returned.  A script is a JSON list of
`{"when": WORDS, "sql": [SQL, ...], "say": TEXT}`: the first step whose words stand in the user's last message is taken;
each SQL becomes one native tool call, one after the other; then TEXT is said, with {1}, {2}, ... replaced by what the
calls returned, and {1.error} by the error inside it (NL2SQLTool wraps it in all tables and columns), or all of it.

    python -m lab.model ADDRESS PORT SCRIPT [REQUESTS_LOG]
"""
from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MOST = 4 << 20                        # bytes of a request
MODEL = "scripted"


@dataclass(frozen=True)
class Step:
    when: str
    sql: tuple[str, ...]
    say: str


@dataclass(frozen=True)
class Reply:
    """Either a tool call or a text."""

    text: str = ""
    tool: str = ""
    arguments: str = ""
    call: str = ""                    # id of the call


def parse_script(text: str) -> list[Step]:
    return [Step(one["when"], tuple(one.get("sql", ())), one["say"]) for one in json.loads(text)]


def choose(script: Sequence[Step], messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> Reply:
    """Pure: what the model answers to a conversation."""
    asked = next((_text(one) for one in reversed(messages) if one.get("role") == "user"), "")
    step = next((one for one in script if one.when in asked), None)
    if step is None:
        return Reply(text="I have no script for this.")
    results = [_text(one) for one in messages if one.get("role") == "tool"]
    if len(results) < len(step.sql) and tools:
        function = tools[0]["function"]
        field = next(iter(function["parameters"]["properties"]), "sql_query")
        arguments = json.dumps({field: step.sql[len(results)]})
        return Reply(tool=function["name"], arguments=arguments, call=f"call_{len(results) + 1}")
    said = step.say
    for number, result in enumerate(results, 1):
        said = said.replace(f"{{{number}}}", result).replace(f"{{{number}.error}}", quoted_error(result))
    return Reply(text=said)


def quoted_error(result: str) -> str:
    found = re.search(r" and the error (.*?) and create the correct SQL query", result, re.DOTALL)
    return " ".join((found.group(1) if found else result).split())


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def _message(reply: Reply) -> dict[str, Any]:
    if not reply.tool:
        return {"role": "assistant", "content": reply.text}
    function = {"name": reply.tool, "arguments": reply.arguments}
    call = {"id": reply.call, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def render_completion(reply: Reply, model: str, number: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "message": _message(reply), "finish_reason": "tool_calls" if reply.tool else "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def render_chunks(reply: Reply, model: str, number: int) -> Iterator[dict[str, Any]]:
    """The same as chat.completion.chunk objects."""
    delta = _message(reply)
    for position, call in enumerate(delta.get("tool_calls", ())):
        call["index"] = position
    base = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    yield base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if reply.tool else "stop"}]}
    yield base | {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Sequence[Step] = ()
    requests_log: Path | None = None
    number = 0

    def do_GET(self) -> None:
        self._note({})
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "lab"}]})
        else:
            self._json(404, {"error": {"message": f"no {self.path} here", "type": "invalid_request_error"}})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if size > MOST or self.path != "/v1/chat/completions":
            self.close_connection = True
            self._json(404, {"error": {"message": f"no {self.path} here", "type": "invalid_request_error"}})
            return
        body = json.loads(self.rfile.read(size))
        self._note(body)
        Handler.number += 1
        reply = choose(self.script, body.get("messages", []), body.get("tools", []))
        if body.get("stream"):
            self._stream(render_chunks(reply, body.get("model", MODEL), Handler.number))
        else:
            self._json(200, render_completion(reply, body.get("model", MODEL), Handler.number))

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, chunks: Iterator[dict[str, Any]]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def _note(self, body: dict[str, Any]) -> None:
        if self.requests_log is not None:
            with open(self.requests_log, "a") as file:
                file.write(json.dumps({"method": self.command, "path": self.path, "body": body}) + "\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


def main(address: str, port: str, script: str, requests_log: str = "") -> None:
    Handler.script = parse_script(Path(script).read_text())
    Handler.requests_log = Path(requests_log) if requests_log else None
    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
