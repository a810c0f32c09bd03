"""The app's manifest, by the bounds of Slack's published schema (github.com/slackapi/manifest-schema, version 1)."""
from __future__ import annotations

import json
from pathlib import Path

MANIFEST = json.loads((Path(__file__).resolve().parent.parent / "packaging/slack/manifest.json").read_text())


def test_the_manifest_is_as_slack_takes_it() -> None:
    assert set(MANIFEST) == {"_metadata", "display_information", "features", "oauth_config", "settings"}
    said = MANIFEST["display_information"]
    assert len(said["name"]) <= 35
    assert len(said["description"]) <= 140
    assert 175 <= len(said["long_description"]) <= 4000
    assert MANIFEST["settings"]["interactivity"]["is_enabled"]
    assert MANIFEST["settings"]["socket_mode_enabled"]


def test_it_asks_for_no_more_than_is_used() -> None:
    """chat.postMessage, chat.update, chat.postEphemeral: chat:write; views.open and auth.test: none."""
    assert MANIFEST["oauth_config"] == {"scopes": {"bot": ["chat:write"]}}
    assert "event_subscriptions" not in MANIFEST["settings"]
