"""What the files of [slack] and [[webhook]] hold, for the process that uses it.  Read at each configuration, and by
`weir check`."""
from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from agent.contract.notify import SOCKET, Slack, Webhook
from agent.credential.secrets import SecretError, read_secret
from agent.settings.notify_table import SlackEntry, WebhookEntry

LIMIT: Final = 4096                   # bytes
PREFIX: Final = "whsec_"              # Standard Webhooks, "Signature scheme"
LEAST, MOST = 24, 64                  # bytes of a webhook's secret
_TOKEN: Final = re.compile(r"[!-~]{8,2000}")
BEGIN: Final = {"bot_token_file": "xoxb-", "app_token_file": "xapp-"}    # Slack's documentation, "Token types"


def render_slack(entry: SlackEntry, roots: str) -> Slack:
    """Raises SecretError."""
    socket = entry.mode == SOCKET
    return Slack(
        bot_token=_text(entry.bot_token_file, "bot_token_file"),
        app_token=_text(entry.app_token_file, "app_token_file") if socket else "",
        signing_secret="" if socket else _text(entry.signing_secret_file, "signing_secret_file"),
        mode=entry.mode, team=entry.team or "", channel=entry.channel or "", channels=entry.channels,
        people=tuple(entry.people), show=entry.show, url=entry.url, ca=roots)


def render_webhook(entry: WebhookEntry, roots: str) -> Webhook:
    """Raises SecretError."""
    return Webhook(entry.name, entry.url, parse_secret(_text(entry.secret_file, "secret_file")), roots, entry.events,
                   entry.show)


def wrong_content(file: str, field: str) -> str:
    """What is wrong with what such a file holds, or empty; it is never said itself."""
    try:
        text = _text(file, field)
        if field == "secret_file":
            parse_secret(text)
    except SecretError as wrong:
        return str(wrong)
    return ""


def parse_secret(text: str) -> bytes:
    """Raises SecretError, which does not hold it."""
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if not text.startswith(PREFIX) or not LEAST <= len(secret) <= MOST:
        raise SecretError(f"secret_file holds no secret; {PREFIX} and {LEAST} to {MOST} bytes in base64 would be right")
    return secret


def _text(file: str | None, field: str) -> str:
    if file is None:
        raise SecretError(f"{field} is missing")
    text = read_secret(file, LIMIT, field).decode("latin-1").strip("\r\n")
    if not _TOKEN.fullmatch(text):
        raise SecretError(f"{field} {file} holds no token in one line")
    if not text.startswith(BEGIN.get(field, "")):
        raise SecretError(f"{field} {file} holds something else: this token begins with {BEGIN[field]}")
    return text
