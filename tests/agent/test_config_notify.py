"""[slack] and [[webhook]] in the configuration: what is right, what is not, and what would be."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import Config, parse_config
from agent.credential.secrets import SecretError
from agent.notify.files import render_slack, render_webhook
from agent.settings.check import load_config
from agent.settings.fields import ConfigError

SLACK = """
[slack]
bot_token_file = "/etc/weir/credentials/slack-bot"
app_token_file = "/etc/weir/credentials/slack-app"
team = "T012AB3C4"
channel = "C012AB3C4"
"""
WEBHOOK = """
[[webhook]]
name = "pager"
url = "https://hooks.lab.example/weir"
secret_file = "/etc/weir/credentials/pager"
"""


def errors(text: str) -> str:
    return "\n".join(str(one) for one in parse_config(text, "weir.toml")[1].problems)


def right(text: str) -> Config:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, "\n".join(map(str, report.problems))
    return config


def test_nothing_is_told_where_nothing_is_configured() -> None:
    assert not right("").notifies
    assert right(SLACK).notifies
    assert right(WEBHOOK).notifies


def test_what_is_right_and_its_defaults() -> None:
    config = right(SLACK + '[slack.people]\nU012AB3C4 = "local:ada"\n[slack.channels]\ndba = "G1234"\n' + WEBHOOK)
    assert (config.slack.mode, config.slack.show, config.slack.url) == ("socket", "summary", "https://slack.com/api")
    assert config.slack.people == {"U012AB3C4": "local:ada"}
    [hook] = config.webhooks
    assert (hook.events, hook.show, hook.approver) == (("pending", "changed", "over"), "summary", None)
    assert right(SLACK + 'url = "http://127.0.0.1:8080/api/"\n').slack.url == "http://127.0.0.1:8080/api"


@pytest.mark.parametrize(("text", "wanted"), [
    (SLACK.replace("app_token_file", "signing_secret_file"),
     'slack: app_token_file is missing: mode = "socket" needs it'),
    (SLACK + 'mode = "request-url"\n', 'signing_secret_file is missing: mode = "request-url" needs it'),
    (SLACK + 'mode = "request-url"\n', 'slack.app_token_file: is not used with mode = "request-url"'),
    (SLACK.replace("team =", "#"), "slack: team is missing"),
    ('[slack]\nchannel = "C012AB3C4"\n', "is not used without `bot_token_file`"),
    (SLACK.replace("C012AB3C4", "#approvals"), "the id of a Slack channel, like C012AB3C4 would be right"),
    (SLACK + '[slack.people]\nada = "local:ada"\n', "'ada': it is none; a table, each the id of a Slack user"),
    (SLACK + '[slack.people]\nU012AB3C4 = "ada"\n', "'U012AB3C4': it is none"),
    (SLACK + '[slack.people]\nU012AB3C4 = "corp:ada"\n', "'corp' is no provider; there is: local"),
    (SLACK + '[slack.people]\nU012AB3C4 = "local:ada"\nU999AB3C4 = "local:ada"\n', "local:ada is both U012AB3C4 and"),
    (SLACK + 'url = "http://slack.com/api"\n', "it is not https; an https URL, or an http URL with a loopback address"),
    (SLACK + 'bot_token = "xoxb-secret"\n', "secrets never stand in this file; bot_token_file"),
    (WEBHOOK.replace("https:", "http:"), "weir.toml:4: webhook[1].url: it is not https"),
    (WEBHOOK.replace("https://", "https://user:secret@"), "has a user or a fragment"),
    (WEBHOOK.replace("https://hooks.lab.example", "http://localhost"), "it is not https"),
    (WEBHOOK + 'approver = "corp:ada"\n', "webhook[1].approver: 'corp' is no provider"),
    (WEBHOOK + 'events = []\n', "is not a list of at least 1"),
    (WEBHOOK * 2, "'pager' is also the name of webhook[1]"),
    ("".join(WEBHOOK.replace("pager", f"p{n}") for n in range(17)), "stands 17 times, 16 is the most"),
    (WEBHOOK + '[runtime]\nnotify_user = "weir"\n', "runtime.notify_user: is another process' user too"),
])
def test_what_is_wrong_is_said_with_what_would_be_right(text: str, wanted: str) -> None:
    found = errors(text)
    assert wanted in found
    assert "xoxb-secret" not in found


def test_the_secret_of_an_address_is_not_said() -> None:
    assert "secret@" not in errors(WEBHOOK.replace("https://", "https://user:secret@"))


@pytest.mark.skipif(os.geteuid() != 0, reason="secrets are root's")
def test_files_on_this_host(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    texts = {"bot": "xoxb-1-2-abc", "app": "xapp-1-2-abc", "hook": "whsec_" + "bGFi" * 8}
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "\n")
        (tmp_path / name).chmod(0o600)
    made = (SLACK + WEBHOOK).replace("/etc/weir/credentials/slack-bot", f"{tmp_path}/bot")
    made = made.replace("/etc/weir/credentials/slack-app", f"{tmp_path}/app")
    made = made.replace("/etc/weir/credentials/pager", f"{tmp_path}/hook")
    users = '\n[runtime]\nuser = "nobody"\naudit_user = "mail"\nnotify_user = "news"\napprovers = "games"\n'
    file = tmp_path / "weir.toml"
    file.write_text(made + users)
    config = load_config(file)
    assert render_slack(config.slack, "").bot_token == texts["bot"]
    assert render_webhook(config.webhooks[0], "").secret == b"lab" * 8
    (tmp_path / "bot").chmod(0o644)
    with pytest.raises(ConfigError, match=r"slack.bot_token_file: .*others than root can read it"):
        load_config(file)
    with pytest.raises(SecretError, match="others than root"):
        render_slack(config.slack, "")
    (tmp_path / "bot").chmod(0o600)
    (tmp_path / "bot").write_text("two\nlines of secrets\n")
    with pytest.raises(SecretError, match="holds no token in one line") as wrong:
        render_slack(config.slack, "")
    assert "secrets" not in str(wrong.value).replace("bot_token_file", "")
    for name, text, wanted in (
        ("bot", texts["app"], r"slack.bot_token_file: .*this token begins with xoxb-"),
        ("app", texts["bot"], r"slack.app_token_file: .*this token begins with xapp-"),
        ("hook", "hunter2222", r"webhook\[1\].secret_file: .*whsec_ and 24 to 64 bytes in base64 would be right"),
    ):
        (tmp_path / "bot").write_text(texts["bot"])
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=wanted) as said:
            load_config(file)
        assert text not in str(said.value)
        (tmp_path / name).write_text(texts[name])
    file.write_text(made + users.replace("news", "no-such-user"))
    with pytest.raises(ConfigError, match=r"runtime.notify_user: there is no user"):
        load_config(file)
    file.write_text(made.replace("[[webhook]]", '[[webhook]]\nca = "/etc/passwd"') + users)
    with pytest.raises(ConfigError, match=r"webhook\[1\].ca: /etc/passwd holds no certificate"):
        load_config(file)
