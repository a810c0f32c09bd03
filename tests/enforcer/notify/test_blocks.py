"""Messages and modals by Slack's own models, and what a crew can make of them: nothing."""
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notify_lab import ADA, notice, view
from receivers import check_blocks, check_view

from agent.contract.notify import STATEMENT, SUMMARY
from enforcer.notify import blocks, words
from enforcer.notify.blocks import Pressed

PRESSED = Pressed("abcdefgh", False, "C0LAB0000", "1700000000.000001")
EVIL = "<!channel> <@U0ADA0000> <https://evil.example|ok> *bold* ``` &lt; \u202e\x00\r\n\x1b[31m :rotating_light: "


def texts(found: Any, kinds: tuple[str, ...]) -> list[str]:
    """Of every object of these kinds."""
    if isinstance(found, dict):
        mine = [found["text"]] if found.get("type") in kinds and isinstance(found.get("text"), str) else []
        return mine + [text for one in found.values() for text in texts(one, kinds)]
    return [text for one in found for text in texts(one, kinds)] if isinstance(found, list) else []


@pytest.mark.parametrize("show", [SUMMARY, STATEMENT])
@pytest.mark.parametrize("over", ["", "approved", "denied", "expired", "cancelled"])
@pytest.mark.parametrize("form", ["hold", "ticket", "elevation"])
def test_slack_knows_every_message(show: str, over: str, form: str) -> None:
    made = blocks.message(notice(view(form=form), over=over, by="local:ada" if over else ""), "crewhost", show)
    plain = blocks.plainest(notice(view(form=form), over=over), "crewhost")
    for each in (made, plain):
        check_blocks(each["blocks"])
        assert any(one["type"] == "actions" for one in each["blocks"]) == (not over)
    assert "public.orders" not in json.dumps(plain)


def test_slack_knows_the_modal() -> None:
    check_view(blocks.modal(view(), PRESSED))
    assert blocks.parse_pressed(blocks.modal(view(), PRESSED)["private_metadata"]) == PRESSED


def test_a_program_that_is_not_known_is_left_out() -> None:
    made = json.dumps(blocks.message(notice(view(exe="")), "crewhost", SUMMARY))
    assert f"(pid {view().pid})" in made


def test_what_stays_on_the_host() -> None:
    one = view(text="delete /*hidden1*/", parameters=("hidden2",), plan="hidden3")
    made = json.dumps(blocks.message(notice(one), "crewhost", SUMMARY))
    assert not [word for word in ("hidden1", "hidden2", "hidden3") if word in made]
    whole = json.dumps(blocks.message(notice(one), "crewhost", STATEMENT))
    assert all(word in whole for word in ("hidden1", "hidden2", "hidden3"))
    assert "sql:delete public.orders" in made


def test_nothing_of_a_crews_is_formatted() -> None:
    """Only plain_text, rich_text's literal texts, and the escaped line for notifications; no mrkdwn anywhere."""
    names = ("text", "action", "plan", "exe", "reason", "reported", "subject", "workload", "target", "database")
    evil = view(**dict.fromkeys(names, EVIL), parameters=(EVIL,), rules=(EVIL,), approvers=(EVIL,), assents=(EVIL,))
    for made in (blocks.message(notice(evil), EVIL, STATEMENT), blocks.modal(evil, PRESSED)):
        rendered = json.dumps(made)
        assert '"mrkdwn", ' not in rendered
        assert '"type": "mrkdwn"' not in rendered
        assert '"type": "link"' not in rendered
        assert '"type": "broadcast"' not in rendered
        check_blocks(made["blocks"])
        for text in texts(made, ("text", "plain_text")):
            assert all(one.isprintable() or one in "\n\t" for one in text)
    made = blocks.message(notice(evil), EVIL, STATEMENT)
    assert "<" not in made["text"]
    assert (made["mrkdwn"], made["parse"], made["link_names"], made["unfurl_links"]) == (False, "none", False, False)


@given(st.text(max_size=40), st.integers(1, 40_000))
def test_the_longest_fits(unit: str, times: int) -> None:
    long = (unit or "x") * times
    one = view(text=long, action=long, plan=long, exe=long, reason=long, reported=long, parameters=(long,) * 100,
               rules=(long[:100],) * 100, approvers=(long[:100],) * 100, assents=(long[:100],) * 100)
    made = blocks.message(notice(one), "crewhost", STATEMENT)
    check_blocks(made["blocks"])
    assert len(made["text"]) <= 5 * words.LINE
    assert all(len(text) <= 3000 for text in texts(made, ("text", "plain_text")))
    assert len(json.dumps(made)) < 200_000
    check_view(blocks.modal(one, PRESSED))


def test_the_button_names_the_ticket_alone() -> None:
    made = blocks.message(notice(), "crewhost", SUMMARY)
    [actions] = [one for one in made["blocks"] if one["type"] == "actions"]
    assert [one["value"] for one in actions["elements"]] == ["abcdefgh", "abcdefgh"]
    assert ADA not in json.dumps(made)


def test_a_parameter_is_one_line_and_makes_no_others() -> None:
    (_, shown), = [one for one in words.texts(view(parameters=("7\n$2 = nobody", "everybody")), STATEMENT)
                   if one[0] == "Parameters"]
    assert shown.split("\n") == ["$1 = 7?$2 = nobody", "$2 = everybody"]


def test_what_goes_with_a_request_is_no_parameter() -> None:
    one = view(database="", parameters=("images: nginx\nprivileged: no", "privileged: yes"), reuse="command",
               covers="k8s:create of pods in shop", exe="/usr/bin/kubectl", pid=7)
    (_, shown), = [text for text in words.texts(one, STATEMENT) if text[0] == "With"]
    assert shown.split("\n") == ["images: nginx?privileged: no", "privileged: yes"]
    assert dict(words.facts(one))["Lets through"].startswith(
        "this and further requests of this command (pid 7, /usr/bin/kubectl): k8s:create of pods in shop")
    assert "Lets through" not in dict(words.facts(view()))
