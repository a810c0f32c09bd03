"""What an approver sees of a request: all of its outline however long it is, and what policy saw in it."""
from __future__ import annotations

import json
from typing import Any

import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.owner import Process
from agent.contract.said import lets_through
from enforcer.approval.views import TEXT
from enforcer.core.book import Book
from enforcer.core.desk import Ask, Verdict
from enforcer.http.shown import ROOM, RequestManner, fold, told
from enforcer.policy.holds import parse_hold
from enforcer.words import commands, inputs
from enforcer.words.decisions import HOLD, PERMIT, Decision
from enforcer.words.operations import Principal, Request

LINE = "POST /apis/apps/v1/namespaces/shop/deployments"
HIDDEN: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"annotations": {f"padding-{number}": "x" * 300 for number in range(400)}, "name": "web"},
    "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "evil", "securityContext": {
        "privileged": True}}], "hostNetwork": True}}},
}


def text(value: object) -> str:
    return f"{LINE}\n\n{json.dumps(value)}"


def test_what_is_short_is_shown_as_it_is() -> None:
    assert fold(text({"kind": "Pod"})) == text({"kind": "Pod"})


def test_padding_hides_nothing_that_comes_after_it() -> None:
    shown = fold(text(HIDDEN))
    assert len(shown) <= ROOM
    assert shown.startswith(f"{LINE}\n(folded: {len(json.dumps(HIDDEN))} characters in all)\n\n{{")
    assert '"privileged": true' in shown
    assert '"hostNetwork": true' in shown
    assert "entries more" in shown
    assert "... (300 characters)" in shown


def test_long_lists_hide_no_names_behind_them() -> None:
    containers = [{"name": f"c{number}", "image": f"api:{number}", "securityContext": {"privileged": True}, "env": [
        {"name": f"V{one}", "value": "x" * 200} for one in range(40)]} for number in range(6)]
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api", "labels": {"app": "api"}},
            "spec": {"replicas": 3, "template": {"spec": {"containers": containers, "hostNetwork": True}}}}
    shown = fold(text(body))
    for seen in ('"spec": {', '"image": "api:0"', '"privileged": true', '"hostNetwork": true', "entries more"):
        assert seen in shown


@pytest.mark.parametrize("value", [
    ["x" * 100_000], {"k" * 100_000: 1}, {f"k{number}": number for number in range(10_000)},
    [[["y" * 50] * 50] * 50], list(range(100_000)), [{str(number): ["z" * 90] * 9 for number in range(9)}] * 99,
], ids=["string", "name", "many names", "nested", "numbers", "all of it"])
def test_everything_long_says_how_long_it_is(value: object) -> None:
    shown = fold(text(value))
    assert ROOM >= len(shown) > 100
    assert "..." in shown


def test_what_is_deep_is_told() -> None:
    value: object = "x" * 5000
    for _ in range(500):
        value = [value]
    shown = fold(text(value))
    assert "[... 1 entry, too deep]" in shown
    assert len(shown) <= ROOM


@pytest.mark.parametrize("body", ["{" * 5000, "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "x" * 5000, "",
                                  '"\\ud800"' * 999])
def test_what_is_no_json_is_left_to_be_cut(body: str) -> None:
    said = f"{LINE}?{'x' * 3000}\n\n{body}" if not body else f"{LINE}\n\n{body}"
    assert fold(said) == said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63, 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(), lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=60)


@settings(max_examples=150, deadline=None)
@given(JSON, st.integers(200, 700))
def test_whatever_it_is_it_fits(value: object, room: int) -> None:
    whole = text(value)
    shown = fold(whole, room)
    assert shown == whole or len(shown) <= room


def test_attributes_are_lines_that_none_can_forge() -> None:
    asked = [Request("k8s:create", "Object", ("cluster", "shop", "pods", "web"), (
        ("images", ("nginx:1.25", "a, privileged: no", "b\nhost_path: no")), ("privileged", True), ("host_path", False),
        ("service_account", ""), ("capabilities", ()), ("kinds", tuple(f"k{number}" for number in range(30))))),
        Request("k8s:impersonate", "Identity", ("cluster", "user ada"), (("privileged", True),))]
    every = ("images", "privileged", "host_path", "service_account", "capabilities", "kinds")
    assert told(asked, ("privileged",)) == ("privileged: yes",)
    assert told(asked, every) == (
        'images: nginx:1.25, "a, privileged: no", "b\\nhost_path: no"', "privileged: yes",
        f"kinds: {', '.join(f'k{number}' for number in range(20))} and 10 more")


# ---- through the book to the approver, and to the others of the command

KUBECTL = Process(7, "/usr/bin/kubectl", "ab" * 32, ("kubectl", "delete", "pods", "--all"), 5_000)
TERMS = parse_hold("pods-are-held", "approvers=dba, reuse=command")


class Held:
    """Holds everything."""

    version = 1

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (), approved: bool = False,
    ) -> Decision:
        return Decision(PERMIT) if approved else Decision(HOLD, (TERMS.rule,), holds=(TERMS,))


class Session:
    """A book and the hold behind it."""

    def __init__(self, desk: Desk, name: str) -> None:
        context = desk.context(name, process=KUBECTL, target="cluster")
        object.__setattr__(context, "gate", Held())
        self.desk, self.context, self.verdicts = desk, context, list[Verdict]()
        self.said: list[commands.Command] = []
        self.book = Book(context, self._say, RequestManner(("dry_run",)))

    def _say(self, command: commands.Command) -> None:
        self.said.append(command)
        if isinstance(command, commands.Hold):
            answer = self.desk.holds.open(self.context, command)
            if isinstance(answer, inputs.HoldAnswered):
                self.book.answered(answer)
        elif isinstance(command, commands.UseHold):
            assert self.desk.holds.use(self.context.session, command.operation, command.ticket, command.held)

    def delete(self, name: str, covers: str = "k8s:delete of pods in shop") -> None:
        line = f"DELETE /api/v1/namespaces/shop/pods/{name}".encode()
        self.book.ask(Ask(
            "delete", line + b"\n\n" + json.dumps(HIDDEN).encode(),
            (Request("k8s:delete", "Object", ("cluster", "shop", "pods", name), (("dry_run", True),)),), line,
            writes=True, shape=b"s" * 32, covers=covers), self.verdicts.append)


def test_one_yes_for_the_requests_of_a_command() -> None:
    desk = Desk(running={(7, 5_000)})
    first, second = Session(desk, "s1"), Session(desk, "s2")
    first.delete("web-1")
    [view] = desk.holds.views()
    assert view.parameters == ("dry_run: yes",)
    assert len(view.text) <= ROOM < TEXT
    assert '"privileged": true' in view.text
    assert "k8s:delete of pods in shop, until it ends" in lets_through(view)
    assert desk.approve(view.ticket) == ""
    first.book.answered(desk.last)
    first.delete("web-2")
    second.delete("web-3")
    assert [one.permitted for one in (*first.verdicts, *second.verdicts)] == [True, True, True]
    second.delete("web-4", covers="")
    assert len(second.verdicts) == 1, "a shape without words is for the same names"


def test_all_of_it_is_recorded() -> None:
    desk = Desk(running={(7, 5_000)})
    session = Session(desk, "s1")
    session.delete("web-1")
    blobs = [blob[2] for command in session.said if isinstance(command, commands.Record) for blob in command.blobs]
    assert any(json.dumps(HIDDEN).encode() in one for one in blobs)
