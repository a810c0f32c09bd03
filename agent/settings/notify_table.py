"""Pure: [slack] and [[webhook]]: the tables of their fields, and what must hold between them."""
from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from agent.contract.notify import EVENTS, PEOPLE, REQUEST_URL, SOCKET, STATEMENT, SUMMARY, WEBHOOKS
from agent.settings import fields as kinds
from agent.settings.fields import Field, Kind, Report, Section

_TEAM: Final = re.compile(r"[TE][A-Z0-9]{2,31}")
_CHANNEL: Final = re.compile(r"[CG][A-Z0-9]{2,31}")
_USER: Final = re.compile(r"[UW][A-Z0-9]{2,31}")
_SUBJECT: Final = re.compile(r"[a-z][a-z0-9-]{0,31}:[^\s:].{0,255}")


class SlackEntry(msgspec.Struct, frozen=True):
    """[slack]; `agent.contract.notify.Slack` is what its process is told of it."""

    bot_token_file: str | None = None # None: there is no Slack
    mode: str = SOCKET
    app_token_file: str | None = None
    signing_secret_file: str | None = None
    team: str | None = None
    channel: str | None = None
    channels: dict[str, str] = {}     # group -> channel
    people: dict[str, str] = {}       # Slack user -> subject
    show: str = SUMMARY
    url: str = "https://slack.com/api"
    ca: str | None = None


class WebhookEntry(msgspec.Struct, frozen=True):
    """[[webhook]]; `agent.contract.notify.Webhook` is what its process is told of it."""

    name: str
    url: str
    secret_file: str
    ca: str | None = None
    events: tuple[str, ...] = EVENTS
    approver: str | None = None       # subject that a signed link answers as; None: there is no link
    show: str = SUMMARY


def _one(pattern: re.Pattern[str], right: str) -> Kind:
    def parse(value: Any) -> str:
        text: str = kinds.TEXT.parse(value)
        if not pattern.fullmatch(text):
            raise ValueError("it is none")
        return text

    return Kind(right, parse)


def _table(key: Kind, value: Kind, right: str) -> Kind:
    def parse(found: Any) -> dict[str, str]:
        if not isinstance(found, dict) or len(found) > PEOPLE:
            raise ValueError(f"it is not a table of at most {PEOPLE}")
        made = {}
        for name, one in found.items():
            try:
                made[key.parse(name)] = value.parse(one)
            except ValueError as wrong:
                raise ValueError(f"{name!r}: {wrong}") from None
        return made

    return Kind(right, parse)


def _url(value: Any) -> str:
    """https; http where nobody else hears it."""
    text: str = kinds.TEXT.parse(value)
    try:
        place = urlsplit(text)
        host, _ = place.hostname or "", place.port
    except ValueError:
        raise ValueError("it is none") from None
    if not host or place.username is not None or place.fragment or not text.isascii() or " " in text:
        raise ValueError("it is none, or has a user or a fragment")
    if place.scheme != "https" and not (place.scheme == "http" and _is_loopback(host)):
        raise ValueError("it is not https")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


URL: Final = Kind("an https URL, or an http URL with a loopback address", _url)
TEAM: Final = _one(_TEAM, "the id of a Slack workspace, like T012AB3C4")
CHANNEL: Final = _one(_CHANNEL, "the id of a Slack channel, like C012AB3C4")
USER: Final = _one(_USER, "the id of a Slack user, like U012AB3C4")
SUBJECT: Final = _one(_SUBJECT, 'a subject, like "local:ada" or "corp:ada"')
PEOPLE_TABLE: Final = _table(USER, SUBJECT, 'a table, each the id of a Slack user and a subject, like "local:ada" or '
                             '"corp:ada"')
CHANNELS_TABLE: Final = _table(kinds.NAME, CHANNEL, "a table, each a group and the id of a Slack channel")

SLACK: Final = Section("slack", SlackEntry, False, "Approvals told and answered in Slack; docs/operator/people.md "
    "has the app's manifest.", (
    Field("bot_token_file", kinds.PATH, "File that holds the bot's token (xoxb-...) and nothing else; root's, mode "
          "0600.  Without it there is no Slack.", None, "/etc/weir/credentials/slack-bot"),
    Field("mode", kinds.choice(SOCKET, REQUEST_URL), "How presses of buttons come: by a connection that Weir opens, or "
          "as requests to the page's /slack/actions.", SOCKET),
    Field("app_token_file", kinds.PATH, "With `socket`: file that holds the app-level token (xapp-...); root's, mode "
          "0600.", None, "/etc/weir/credentials/slack-app"),
    Field("signing_secret_file", kinds.PATH, "With `request-url`: file that holds the app's signing secret; root's, "
          "mode 0600.", None, "/etc/weir/credentials/slack-signing", instead=True),
    Field("team", TEAM, "The workspace, whose users alone count.", None, "T012AB3C4"),
    Field("channel", CHANNEL, "Where holds are told.", None, "C012AB3C4"),
    Field("channels", CHANNELS_TABLE, "As `[slack.channels]`: group of approvers, and the channel where what it may "
          "answer is told instead.", {}, {"dba": "C056DE7F8"}),
    Field("people", PEOPLE_TABLE, "As `[slack.people]`: who answers: Slack user, and the subject that it is.  Groups "
          "are those of groups.toml and, of a `local:` one, of this host.", {}, {"U012AB3C4": "local:ada"}),
    Field("show", kinds.choice(SUMMARY, STATEMENT), "What leaves the host: who wants what against what, or the "
          "statement, its parameters and its plan, too.", SUMMARY),
    Field("url", URL, "Of Slack's Web API.", "https://slack.com/api"),
    Field("ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None, "/etc/weir/proxy-ca.pem",
          instead=True),
))
WEBHOOK: Final = Section("webhook", WebhookEntry, True, "Somewhere that holds are told as signed JSON (Standard "
    "Webhooks; docs/webhook.schema.json).", (
    Field("name", kinds.NAME, "For the recording and `weir status`.", example="pager"),
    Field("url", URL, "Where events are posted.", example="https://hooks.lab.example/weir"),
    Field("secret_file", kinds.PATH, "File that holds the secret that events are signed with, `whsec_` and 24 to 64 "
          "bytes in base64; root's, mode 0600.", example="/etc/weir/credentials/pager"),
    Field("ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None,
          "/etc/weir/hooks-ca.pem", instead=True),
    Field("events", kinds.several(kinds.choice(*EVENTS), least=1), "Which.", list(EVENTS)),
    Field("approver", SUBJECT, "Events hold a link to the page, by which whoever has it answers as this subject.  "
          "Default: no link.", None, "local:ada", instead=True),
    Field("show", kinds.choice(SUMMARY, STATEMENT), "As in [slack].", SUMMARY),
), attribute="webhooks")


def check_notify(report: Report, providers: Collection[str]) -> None:
    """`providers`: names of those at which people log in."""
    slack = report.made.get(("slack",))
    if slack is not None:
        _check_slack(slack, report, providers)
    webhooks = report.entries("webhook")
    if len(webhooks) > WEBHOOKS:
        report.add(("webhook",), f"stands {len(webhooks)} times, {WEBHOOKS} is the most")
    for path, one in webhooks:
        if one.approver and (wrong := _wrong_subject(one.approver, providers)):
            report.add((*path, "approver"), wrong)
    runtime = report.made.get(("runtime",))
    if runtime and runtime.notify_user in (runtime.user, runtime.audit_user, runtime.identity_user):
        report.add(("runtime", "notify_user"), "is another process' user too: what speaks with Slack and webhooks has "
                   "one of its own")


def _check_slack(slack: SlackEntry, report: Report, providers: Collection[str]) -> None:
    if slack.bot_token_file is None:
        for name in ("app_token_file", "signing_secret_file", "team", "channel", "channels", "people", "ca"):
            if getattr(slack, name):
                report.add(("slack", name), "is not used without `bot_token_file`: name that, or leave it out")
        return
    needed, other = ("app_token_file", "signing_secret_file") if slack.mode == SOCKET else (
        "signing_secret_file", "app_token_file")
    for name in ("team", "channel", needed):
        if getattr(slack, name) is None:
            why = f': mode = "{slack.mode}" needs it' if name == needed else ""
            report.add(("slack",), f"{name} is missing{why}")
    if getattr(slack, other):
        report.add(("slack", other), f'is not used with mode = "{slack.mode}": leave it out')
    for user, subject in slack.people.items():
        if wrong := _wrong_subject(subject, providers):
            report.add(("slack", "people"), f"{user}: {wrong}")
    by_subject: dict[str, str] = {}
    for user, subject in slack.people.items():
        if (first := by_subject.setdefault(subject, user)) != user:
            report.add(("slack", "people"), f"{subject} is both {first} and {user}: one person has one Slack user")


def _wrong_subject(subject: str, providers: Collection[str]) -> str:
    provider = subject.partition(":")[0]
    if provider == "local" or provider in providers:
        return ""
    known = ", ".join(sorted(("local", *providers)))
    return f"{provider!r} is no provider; there is: {known}"
