from __future__ import annotations

import json

import jsonschema
import pytest
from notify_lab import notice, view
from receivers import SCHEMA, WEBHOOK_SECRET

from agent.contract.notify import EVENTS, Webhook
from agent.notify.files import parse_secret
from enforcer.notify.payload import render_event, render_test

LINKS = {"pager": ("https://weir.lab.example/link/a.b", "https://weir.lab.example/link/c.d")}


def webhook(show: str) -> Webhook:
    return Webhook("pager", "https://hooks.lab.example", parse_secret(WEBHOOK_SECRET), "", EVENTS, show)


@pytest.mark.parametrize("show", ["summary", "statement"])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("links", [{}, LINKS])
def test_every_body_is_as_the_schema_has_it(show: str, event: str, links: dict[str, tuple[str, str]]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    one = notice(view(form="elevation", workload="", pid=0, exe="", database="", rows=-1), links=links,
                 over="denied" if event == "over" else "", by="local:ada")
    for each in (one, notice(links=links, over=one.over)):
        _, body = render_event(each, event, webhook(show), "crewhost", 1_700_000_000_000_000_000)
        jsonschema.validate(json.loads(body), SCHEMA, format_checker=jsonschema.FormatChecker())
        assert (b"statement" in body) == (show == "statement")
        assert (b"/link/" in body) == (bool(links) and event != "over")
    _, body = render_test(webhook(show), "crewhost", 1)
    jsonschema.validate(json.loads(body), SCHEMA)


def test_the_schema_knows_nothing_else() -> None:
    _, body = render_event(notice(), "pending", webhook("summary"), "crewhost", 1)
    found = json.loads(body)
    for wrong in (found | {"more": 1}, found | {"type": "hold.other"}, found | {"data": found["data"] | {"x": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_an_id_is_of_what_is_said() -> None:
    """The same over tries and restarts; another where something else is said."""
    one = view()
    first = render_event(notice(one), "pending", webhook("summary"), "crewhost", 1)
    assert render_event(notice(one), "pending", webhook("summary"), "crewhost", 2) == first
    others = {render_event(notice(one, over="denied"), "over", webhook("summary"), "crewhost", 1)[0],
              render_event(notice(view(assents=("local:ada",))), "changed", webhook("summary"), "crewhost", 1)[0],
              render_event(notice(view("hgfedcba")), "pending", webhook("summary"), "crewhost", 1)[0]}
    assert len({first[0], *others}) == 4
