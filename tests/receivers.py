"""Slack's Web API with socket mode, and a webhooks' receiver, on loopback: for processes that really speak with them.

What comes is checked by what Slack and Standard Webhooks publish: every message and modal goes through slack_sdk's own
models and validators and must be wholly known to them; a webhook's signature is verified by the specification's library
and its body by the committed schema.
"""
from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import uvicorn
from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

BOT, APP, SECRET = "xoxb-1-2-lab", "xapp-1-2-lab", "8f742231b10e8888abcd99yyyzzz85a5"
TEAM, CHANNEL = "T0LAB0000", "C0LAB0000"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"lab" * 8).decode()
SCHEMA = json.loads((Path(__file__).resolve().parent.parent / "docs/webhook.schema.json").read_text())
PARAMETERS = {                        # https://docs.slack.dev/reference/methods: of those that Weir calls
    "chat.postMessage": {"channel", "text", "blocks", "mrkdwn", "parse", "link_names", "unfurl_links", "unfurl_media"},
    "chat.postEphemeral": {"channel", "user", "text", "blocks", "parse", "link_names"},
    "views.open": {"trigger_id", "view"}, "auth.test": set(), "apps.connections.open": set(),
}
PARAMETERS["chat.update"] = {*PARAMETERS["chat.postMessage"], "ts"}


def check_blocks(blocks: list[dict[str, Any]]) -> None:
    """Raises what slack_sdk raises, and AssertionError where it does not know something of it."""
    assert len(blocks) <= 50
    for raw in blocks:
        block = Block.parse(raw)
        assert block is not None
        block.validate_json()
        assert block.to_dict() == raw


def check_view(raw: dict[str, Any]) -> None:
    view = View(**raw)
    view.validate_json()
    assert view.to_dict() == raw
    check_blocks(raw["blocks"])


@dataclass
class SlackReceiver:
    """`calls`: (method, arguments) of what was right; `wrong`: what was not."""

    url: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answers: dict[str, list[Callable[[], Response]]] = field(default_factory=dict)     # instead of the next ones
    acknowledged: dict[str, Any] = field(default_factory=dict)        # envelope: payload
    connections: int = 0
    posted: list[str] = field(default_factory=list)        # timestamps of messages
    link: str = ""                    # instead of the socket's own address
    sockets: list[WebSocket] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    def of(self, method: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == method]

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/api/{method}", self._api, methods=["POST"]),
                                 WebSocketRoute("/link", self._socket)])

    async def _api(self, request: Request) -> Response:
        method, body = request.path_params["method"], await request.body()
        self.loop = asyncio.get_running_loop()
        if waiting := self.answers.get(method):
            return waiting.pop(0)()
        try:
            arguments = json.loads(body)
            token = APP if method == "apps.connections.open" else BOT
            assert request.headers["authorization"] == f"Bearer {token}"
            assert request.headers["content-type"] == "application/json; charset=utf-8"
            assert set(arguments) <= PARAMETERS[method], sorted(set(arguments) - PARAMETERS[method])
            if "blocks" in arguments:
                check_blocks(arguments["blocks"])
            if "view" in arguments:
                check_view(arguments["view"])
        except Exception as wrong:
            self.wrong.append(f"{method}: {type(wrong).__name__}: {wrong}")
            return JSONResponse({"ok": False, "error": "invalid_arguments"})
        self.calls.append((method, arguments))
        return JSONResponse({"ok": True, **self._said(method, arguments)})

    def _said(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if method == "apps.connections.open":
            return {"url": self.link or self.url.replace("http://", "ws://").replace("/api", "/link")}
        if method == "auth.test":
            return {"team_id": TEAM, "user_id": "U0WEIR000", "url": "https://lab.slack.com/"}
        if method.startswith("chat."):
            ts = f"{int(time.time())}.{len(self.calls):06d}"
            self.posted += [ts] if method == "chat.postMessage" else []
            return {"channel": arguments["channel"], "ts": ts, "message": {}}
        return {}

    async def _socket(self, socket: WebSocket) -> None:
        self.loop = asyncio.get_running_loop()
        await socket.accept()
        self.connections += 1
        self.sockets.append(socket)
        try:
            await socket.send_json({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A0LAB0000"},
                                    "debug_info": {"host": "lab", "approximate_connection_time": 18060}})
            while True:
                said = await socket.receive_json()
                self.acknowledged[said["envelope_id"]] = said.get("payload")
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass
        finally:
            self.sockets.remove(socket)

    # what Slack's side does, from any thread

    def send(self, text: str | bytes) -> None:
        assert self.loop is not None
        sock = self.sockets[-1]
        work = sock.send_text(text) if isinstance(text, str) else sock.send_bytes(text)
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def envelope(self, payload: dict[str, Any], identifier: str = "") -> str:
        """As socket mode wraps an interaction."""
        identifier = identifier or secrets.token_hex(8)
        self.send(json.dumps({"envelope_id": identifier, "type": "interactive", "accepts_response_payload": True,
                              "payload": payload}))
        return identifier


def press(call: dict[str, Any], ts: str, user: str, approve: bool = True, **more: Any) -> dict[str, Any]:
    """A block_actions payload of a message's button, as https://docs.slack.dev/reference/interaction-payloads/
    block_actions-payload has it."""
    [actions] = [one for one in call["blocks"] if one["type"] == "actions"]
    button = actions["elements"][0 if approve else 1]
    return {
        "type": "block_actions", "user": {"id": user, "username": "ada", "name": "ada", "team_id": TEAM},
        "api_app_id": "A0LAB0000", "token": "old", "team": {"id": TEAM, "domain": "lab"}, "enterprise": None,
        "is_enterprise_install": False, "trigger_id": f"13345224609.738474920.{secrets.token_hex(8)}",
        "container": {"type": "message", "message_ts": ts, "channel_id": call["channel"], "is_ephemeral": False},
        "channel": {"id": call["channel"], "name": "approvals"}, "message": {"ts": ts, "type": "message"},
        "response_url": "http://127.0.0.1:1/never", "state": {"values": {}},
        "actions": [{"action_id": button["action_id"], "block_id": actions["block_id"], "text": button["text"],
                     "value": button["value"], "style": button["style"], "type": "button",
                     "action_ts": "1700000000.1"}], **more}


def submit(view: dict[str, Any], user: str, reason: str) -> dict[str, Any]:
    """The view_submission of a modal that was opened."""
    [inputs] = [one for one in view["blocks"] if one["type"] == "input"]
    return {
        "type": "view_submission", "team": {"id": TEAM, "domain": "lab"},
        "user": {"id": user, "username": "ada", "name": "ada", "team_id": TEAM}, "api_app_id": "A0LAB0000",
        "trigger_id": "1.2.3", "response_urls": [], "view": {
            "id": "V0LAB0000", "type": "modal", "callback_id": view["callback_id"], "hash": "1.a",
            "private_metadata": view["private_metadata"], "state": {"values": {inputs["block_id"]: {
                inputs["element"]["action_id"]: {"type": "plain_text_input", "value": reason}}}}}}


@dataclass
class WebhookReceiver:
    """`events`: (id, body) of what was right; `statuses`: what the next ones are answered."""

    url: str = ""
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)         # ids of all
    wrong: list[str] = field(default_factory=list)
    statuses: list[int | Response] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/hook", self._hook, methods=["POST"])])

    async def _hook(self, request: Request) -> Response:
        body = await request.body()
        try:
            Webhook(WEBHOOK_SECRET).verify(body, dict(request.headers))
            found = json.loads(body)
            jsonschema.validate(found, SCHEMA, format_checker=jsonschema.FormatChecker())
        except Exception as wrong:
            self.wrong.append(f"{type(wrong).__name__}: {wrong}")
            return Response(status_code=400)
        self.tries.append(request.headers["webhook-id"])
        if self.statuses:
            answer = self.statuses.pop(0)
            if isinstance(answer, Response):
                return answer
            if not 200 <= answer < 300:
                return Response(status_code=answer)
        self.events.append((request.headers["webhook-id"], found))
        return Response(status_code=204)


@contextlib.contextmanager
def serving(app: Starlette, listener: socket.socket | None = None) -> Iterator[str]:
    """In a thread of its own; gives its address.  `listener`: of another network namespace."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="websockets-sansio",
                                           timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextlib.contextmanager
def slack_receiver(listener: socket.socket | None = None) -> Iterator[SlackReceiver]:
    receiver = SlackReceiver()
    with serving(receiver.app(), listener) as place:
        receiver.url = f"{place}/api"
        yield receiver


@contextlib.contextmanager
def webhook_receiver(listener: socket.socket | None = None) -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    with serving(receiver.app(), listener) as place:
        receiver.url = f"{place}/hook"
        yield receiver
