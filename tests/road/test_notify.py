"""Approvals told and answered in Slack and by webhooks, end to end: a real hold of a real PostgreSQL, a receiver that
speaks as Slack does and checks what it gets by Slack's own models, and one for webhooks that fails twice first."""
from __future__ import annotations

import http.client
import json
import re
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
from clients.test_clients import environment
from lab import hosts
from lab.hosts import CREW, wait_until
from lab.lab import Lab
from lab.weir import APPROVER, AUDITOR, Installed, configure, weir
from receivers import (
    APP,
    BOT,
    CHANNEL,
    SECRET,
    TEAM,
    WEBHOOK_SECRET,
    SlackReceiver,
    WebhookReceiver,
    press,
    slack_receiver,
    submit,
    webhook_receiver,
)
from slack_sdk.signature import SignatureVerifier

pytestmark = pytest.mark.lab

ADA, EVE = "U0ADA0000", "U0EVE0000"
MORE = """
[slack]
bot_token_file = "{etc}/slack-bot"
app_token_file = "{etc}/slack-app"
team = "{team}"
channel = "{channel}"
show = "statement"
url = "{slack}"
[slack.people]
{ada} = "local:{approver}"

[[webhook]]
name = "pager"
url = "{hook}"
secret_file = "{etc}/pager"
approver = "local:{approver}"

[web]
url = "http://127.0.0.1:{page}"
listen = "127.0.0.1:{page}"
"""
PAGE = 18443
FORM = "application/x-www-form-urlencoded"


class Here:
    def __init__(self, installed: Installed, slack: SlackReceiver, hook: WebhookReceiver) -> None:
        self.installed, self.slack, self.hook = installed, slack, hook

    def psql(self, sql: str) -> subprocess.CompletedProcess[str]:
        return self.installed.crew("psql", "-X", "-A", "-t", "-w", "-c", sql,
                                   environment=environment(self.installed.lab, "wrong"))

    @contextmanager
    def held(self, sql: str) -> Iterator[tuple[str, list[subprocess.CompletedProcess[str]]]]:
        """Until the block ends: the ticket, which Slack has been told of, and then the answer."""
        before, answers = len(self.slack.of("chat.postMessage")), list[subprocess.CompletedProcess[str]]()
        thread = threading.Thread(target=lambda: answers.append(self.psql(sql)))
        thread.start()
        try:
            wait_until("the message", lambda: len(self.slack.of("chat.postMessage")) > before)
            yield self.button()["value"], answers
        finally:
            thread.join(60)

    def button(self) -> dict[str, Any]:
        [actions] = [one for one in self.slack.of("chat.postMessage")[-1]["blocks"] if one["type"] == "actions"]
        return dict(actions["elements"][0])

    @property
    def ts(self) -> str:
        """Of the last message: as the receiver has given it."""
        return self.slack.posted[-1]

    def press(self, user: str = ADA, approve: bool = True) -> None:
        wait_until("the socket", lambda: bool(self.slack.sockets))
        self.slack.envelope(press(self.slack.of("chat.postMessage")[-1], self.ts, user, approve))

    def executed(self, sql: str) -> int:
        return sum(sql in one.message and "EXPLAIN" not in one.message and not one.error
                   for one in self.installed.lab.database.statements())

    def answered(self, ticket: str) -> list[dict[str, Any]]:
        """The agent's own events."""
        self.installed.settle()
        newest = max(self.installed.recording.glob("recording-*.sqlite"), key=lambda path: path.stat().st_mtime_ns)
        with closing(sqlite3.connect(f"file:{newest}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT detail FROM host_event WHERE name = 'approval.answered' ORDER BY seq").fetchall()
        return [detail for row in rows if (detail := json.loads(row[0]))["ticket"] == ticket]

    def updated(self, text: str) -> None:
        wait_until(f"{text} in the message", lambda: any(
            call["ts"] == self.ts and text in json.dumps(call) for call in self.slack.of("chat.update")))

    def link(self, ticket: str, verb: str) -> str:
        """Of the event, the path at the page."""
        def found() -> list[str]:
            return [body["data"][f"{verb}_url"] for _, body in self.hook.events
                    if body["type"] == "hold.pending" and body["data"]["ticket"] == ticket]

        wait_until("the event", lambda: bool(found()))
        return found()[0].removeprefix(f"http://127.0.0.1:{PAGE}")

    def ask(self, path: str, body: str = "", headers: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Of the page, as a person's browser or Slack on the crew's host: status, text, cookie."""
        with CREW.entered():
            connection = http.client.HTTPConnection("127.0.0.1", PAGE, timeout=20)
            connection.connect()
        with closing(connection):
            connection.request("POST" if body else "GET", path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def notify_pid(self) -> int:
        for child in psutil.Process(self.installed.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if "enforcer.notify.app" in " ".join(child.cmdline()):
                    return child.pid
        return 0


@pytest.fixture(scope="module")
def here(the_lab: Lab) -> Iterator[Here]:
    with CREW.entered():              # where the agent is: sockets stay where they were made
        places = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    with slack_receiver(places[0]) as slack, webhook_receiver(places[1]) as hook:
        config = configure(the_lab)
        etc = config.parent / "credentials"
        for name, text in (("slack-bot", BOT), ("slack-app", APP), ("pager", WEBHOOK_SECRET)):
            (etc / name).write_text(text + "\n")
            (etc / name).chmod(0o600)
        config.write_text(config.read_text() + MORE.format(
            etc=etc, team=TEAM, channel=CHANNEL, slack=slack.url, hook=hook.url, ada=ADA, approver=APPROVER, page=PAGE))
        with weir(the_lab, config) as installed:
            yield Here(installed, slack, hook)
        assert (slack.wrong, hook.wrong) == ([], [])


@pytest.fixture(autouse=True)
def _overseen(here: Here) -> Iterator[None]:
    with here.installed.overseen():
        yield


def test_a_test_and_the_status(here: Here) -> None:
    wait_until("the socket", lambda: bool(here.slack.sockets))
    done = here.installed.weir("notify", "test", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {one["way"]: one["error"] for one in json.loads(done.stdout)} == {
        "slack": "", f"slack {CHANNEL}": "", "slack socket": "", "webhook pager": ""}
    assert here.hook.events[-1][1]["type"] == "weir.test"
    status: Any = here.installed.status()
    assert status["notify"]["pid"] == here.notify_pid()
    assert psutil.Process(here.notify_pid()).username() == "weir-notify"
    refused = here.installed.weir("notify", "test", user=APPROVER)
    assert (refused.returncode, "only root" in refused.stderr) == (1, True)


def test_approved_in_slack_while_a_webhook_fails_twice(here: Here) -> None:
    sql = "DELETE FROM orders WHERE id = -41"
    here.hook.statuses[:] = [500, 503]
    tries = len(here.hook.tries)
    with here.held(sql) as (ticket, answers):
        assert sql in json.dumps(here.slack.of("chat.postMessage")[-1])
        wait_until("the webhook", lambda: any(body["data"].get("ticket") == ticket for _, body in here.hook.events))
        assert len(here.hook.tries) - tries >= 3
        assert len(set(here.hook.tries[tries:tries + 3])) == 1
        here.press(EVE)
        wait_until("the refusal", lambda: bool(here.slack.of("chat.postEphemeral")))
        assert here.executed(sql) == 0
        here.press()
        here.press()                  # twice: decided once
    assert answers[0].stdout == "DELETE 0\n", answers[0].stderr
    assert here.executed(sql) == 1
    here.updated(f"Approved by local:{APPROVER}")
    wait_until("the outcome", lambda: [
        body["data"]["outcome"]["state"] for _, body in here.hook.events
        if body["type"] == "hold.over" and body["data"]["ticket"] == ticket] == ["approved"])
    told = [one for one in here.answered(ticket) if not one["error"]]
    assert [(one["by"], one["way"], one["answer"]) for one in told] == [
        (f"local:{APPROVER}", f"slack {ADA}", "approve")]
    history = here.installed.weir("approvals", "history", ticket, "--recording", str(here.installed.recording),
                                  user=AUDITOR)
    assert f"local:{APPROVER}" in history.stdout


def test_denied_in_slack_with_a_reason(here: Here) -> None:
    sql = "DELETE FROM orders WHERE id = -42"
    with here.held(sql) as (_, answers):
        here.press(approve=False)
        wait_until("the modal", lambda: bool(here.slack.of("views.open")))
        here.slack.envelope(submit(here.slack.of("views.open")[-1]["view"], ADA, "not on a Friday"))
    assert "not on a Friday" in answers[0].stderr
    assert here.executed(sql) == 0
    here.updated(f"Denied by local:{APPROVER}: not on a Friday")


def test_answered_elsewhere_and_the_notify_process_killed(here: Here) -> None:
    """One that starts again posts nothing twice, and brings up to date what the one before it has posted."""
    sql = "DELETE FROM orders WHERE id = -43"
    with here.held(sql) as (ticket, answers):
        pid = here.notify_pid()
        posted = len(here.slack.of("chat.postMessage"))
        wait_until("the webhook", lambda: any(body["data"].get("ticket") == ticket for _, body in here.hook.events))
        hosts.end([pid])
        wait_until("another", lambda: here.notify_pid() not in (0, pid))
        done = here.installed.weir("approvals", "approve", ticket, user=APPROVER)
        assert done.returncode == 0, done.stderr
    assert answers[0].stdout == "DELETE 0\n", answers[0].stderr
    here.updated(f"Approved by local:{APPROVER}")
    assert len(here.slack.of("chat.postMessage")) == posted
    wait_until("the outcome", lambda: any(body["type"] == "hold.over" and body["data"]["ticket"] == ticket
                                          for _, body in here.hook.events))
    assert [body["type"] for _, body in here.hook.events if body["data"].get("ticket") == ticket
            and body["type"] == "hold.pending"] == ["hold.pending"]


def test_a_signed_link_at_the_page(here: Here) -> None:
    """To look at it decides nothing; its button does, once, as the webhook's approver."""
    sql = "DELETE FROM orders WHERE id = -45"
    with here.held(sql) as (ticket, answers):
        path = here.link(ticket, "approve")
        for _ in range(3):            # whatever stands between opens it as well
            status, text, cookie = here.ask(path)
            assert status == 200, text
        assert ticket in text
        assert here.executed(sql) == 0
        assert here.ask(path[:-2] + "xx")[0] == 404
        csrf = re.findall(r'name="csrf" value="([^"]+)"', text)[0]
        headers = {"Content-Type": FORM, "Cookie": cookie, "Origin": f"http://127.0.0.1:{PAGE}",
                   "Sec-Fetch-Site": "same-origin"}
        assert here.ask(path, urlencode({"csrf": "forged"}), headers)[0] == 403
        assert here.executed(sql) == 0
        status, text, _ = here.ask(path, urlencode({"csrf": csrf, "reason": ""}), headers)
        assert (status, "Your answer counts" in text) == (200, True), text
    assert answers[0].stdout == "DELETE 0\n", answers[0].stderr
    assert here.ask(path)[0] == 404
    assert here.ask(path, urlencode({"csrf": csrf}), headers)[0] == 403
    assert here.executed(sql) == 1
    told = [one for one in here.answered(ticket) if not one["error"]]
    assert [(one["by"], one["way"]) for one in told] == [(f"local:{APPROVER}", "link pager")]
    here.updated(f"Approved by local:{APPROVER}")


@pytest.mark.slow
def test_slack_by_request_url_and_a_reload(here: Here) -> None:
    """The page hands on what Slack posts; who signed it, the notify process says."""
    config = here.installed.config
    before, secret = config.read_text(), config.parent / "credentials" / "signing"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    config.write_text(before.replace('app_token_file = "', 'mode = "request-url"\nsigning_secret_file = "').replace(
        "/slack-app", "/signing"))
    assert here.installed.weir("reload").returncode == 0
    try:
        sql = "DELETE FROM orders WHERE id = -46"
        with here.held(sql) as (_, answers):
            body = urlencode({"payload": json.dumps(press(here.slack.of("chat.postMessage")[-1], here.ts, ADA))})
            now = str(int(time.time()))
            signature = SignatureVerifier(SECRET).generate_signature(timestamp=now, body=body) or ""
            headers = {"Content-Type": FORM, "X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}
            assert here.ask("/slack/actions", body, headers | {"X-Slack-Signature": "v0=" + "0" * 64})[0] == 401
            assert here.ask("/slack/actions", body, headers)[0] == 200
            assert here.ask("/slack/actions", body, headers)[0] == 401     # again
        assert answers[0].stdout == "DELETE 0\n", answers[0].stderr
        assert here.executed(sql) == 1
    finally:
        config.write_text(before)
        assert here.installed.weir("reload").returncode == 0


@pytest.mark.slow
def test_the_enforcer_killed(here: Here) -> None:
    with here.held("DELETE FROM orders WHERE id = -44") as (ticket, answers):
        here.installed.kill("enforcer")
    assert answers[0].returncode != 0
    here.updated("Cancelled")
    here.press()
    wait_until("the refusal", lambda: "It is over" in here.slack.of("chat.postEphemeral")[-1]["text"]
               or "Nothing that" in here.slack.of("chat.postEphemeral")[-1]["text"])
    assert here.answered(ticket) == []
    here.installed.wait()


def test_nothing_is_told_of_secrets(here: Here) -> None:
    for text in (here.installed.tail(), json.dumps(here.installed.status())):
        assert not [one for one in (BOT, APP, WEBHOOK_SECRET) if one in text]
