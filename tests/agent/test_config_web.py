"""[web]: what is right, and what would serve the page to the wrong people."""
from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.config import Config, needs_restart, parse_config
from agent.settings import advice
from agent.settings.check import load_config
from agent.settings.fields import ConfigError
from agent.settings.page_table import Web

PAGE = '[web]\nurl = "https://weir.lab.example"\n'
TLS = 'tls_certificate = "/etc/weir/web.pem"\ntls_key = "/etc/weir/web.key"\n'


def errors(text: str) -> list[str]:
    return [str(one) for one in parse_config(text, "weir.toml")[1].problems]


def right(text: str) -> Config:
    config, report = parse_config(text, "weir.toml")
    assert config is not None, report.problems
    return config


def test_without_an_address_there_is_no_page() -> None:
    assert right("").web == Web()
    assert right('[web]\nidle = "1h"\nauditors = ["audit"]\n').web.idle == 3600
    assert errors('[web]\nlisten = "127.0.0.1:8443"\n')[0].startswith("weir.toml:1: web.url: is missing, and without")


@pytest.mark.parametrize(("given", "url"), [
    ("https://Weir.Lab.Example", "https://weir.lab.example"), ("https://weir.lab.example/", "https://weir.lab.example"),
    ("https://weir.lab.example:443", "https://weir.lab.example"), ("https://[::1]:8443", "https://[::1]:8443"),
    ("http://127.0.0.1:8443", "http://127.0.0.1:8443"), ("http://localhost:80", "http://localhost"),
    ("http://[::1]:8443", "http://[::1]:8443")])
def test_its_address_is_as_browsers_write_it(given: str, url: str) -> None:
    assert right(f'[web]\nurl = "{given}"\n').web.url == url


@pytest.mark.parametrize("given", [
    "http://weir.lab.example", "http://10.77.0.2:8443", "http://localhost.evil.example", "https://weir.lab.example/path",
    "https://a@weir.lab.example", "ftp://weir", "weir.lab.example", "https://weir.lab.example:99999", "https://",
    "https://weir.lab.example?x", "http://127.0.0.1.evil.example"])
def test_9_1_1_no_other_address_and_http_for_this_machine_alone(given: str) -> None:
    assert errors(f'[web]\nurl = "{given}"\n')[0].startswith("weir.toml:2: web.url: ")


@pytest.mark.parametrize(("more", "said"), [
    ('listen = "0.0.0.0:8443"\n', "web.listen: is open to others than this machine, and without TLS"),
    ('listen = "10.77.0.2:8443"\n', "web.listen: is open to others"),
    ('listen = "[::]:8443"\n', "web.listen: is open to others"),
    ('listen = "127.0.0.1:15432"\n', "web.listen: is the enforcer's own listener"),
    ('listen = "weir:8443"\n', "web.listen: 'weir:8443' is neither; `unix`, ADDRESS:PORT or [ADDRESS]:PORT would be"),
    ('listen = "127.0.0.1"\n', "is neither"), ('listen = "127.0.0.1:0"\n', "out of bounds"),
    (TLS, "web.tls_key: is not used at a Unix socket"),
    ('listen = "10.77.0.2:8443"\ntls_key = "/k"\n', "web.tls_key: needs `tls_certificate`"),
    ('listen = "127.0.0.1:8443"\ntls_certificate = "/c"\n', "web.tls_certificate: needs `tls_key`"),
    ('operators = "dba"\n', "web.operators"), ('idle = "1s"\n', "web.idle"),
    ('[[egress]]\nname = "x"\naddresses = ["weir.lab.example"]\nports = [443]\n', "no place for crews"),
    ('[runtime]\nweb_user = "weir"\n', "runtime.web_user: is another process' user too"),
])
def test_what_would_be_wrong_is_said(more: str, said: str) -> None:
    found = errors(PAGE + more)
    assert any(said in one for one in found), found


def test_http_and_a_certificate_do_not_fit() -> None:
    assert "https would be right" in errors(
        f'[web]\nurl = "http://127.0.0.1:8443"\nlisten = "127.0.0.1:8443"\n{TLS}')[0]


def test_with_tls_it_may_be_opened() -> None:
    assert right(f'{PAGE}listen = "0.0.0.0:8443"\n{TLS}').web.listen == ("0.0.0.0", 8443)
    assert right(f'{PAGE}listen = "[::1]:8443"\n').web.listen == ("::1", 8443)
    assert right(PAGE).web.listen is None


def test_a_reload_takes_it_over_but_for_its_user() -> None:
    before, after = right(""), right(f'{PAGE}listen = "127.0.0.1:8443"\n[runtime]\nweb_user = "other"\n')
    assert needs_restart(before, after) == ["runtime.web_user"]


def test_its_files_and_its_user_are_looked_at(tmp_path: Path) -> None:
    key, certificate = tmp_path / "web.key", tmp_path / "web.pem"
    key.write_text("k")
    key.chmod(0o644)
    certificate.write_text("none")
    file = tmp_path / "weir.toml"
    file.write_text(f'{PAGE}listen = "10.77.0.2:8443"\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'
                    '[runtime]\nweb_user = "nobody-of-this-name"\n')
    with pytest.raises(ConfigError) as wrong:
        load_config(file)
    said = str(wrong.value)
    assert "web.tls_key: " in said
    assert "web.tls_certificate: " in said
    assert "runtime.web_user: there is no user 'nobody-of-this-name'" in said


def test_what_leaves_it_to_nobody_is_noted() -> None:
    """By `weir check`; it is no mistake, for signed links and chats need no login."""
    config = right(f'{PAGE}operators = ["ops"]\nauditors = ["audit", "dba"]\n')
    assert next(iter(advice.lax(config))) == (
        "nobody can log in at the page https://weir.lab.example: there is no [[provider]] or [[saml_provider]]")
    provider = ('[[provider]]\nname = "corp"\nissuer = "https://idp.lab.example"\nclient_id = "weir"\n'
                '[provider.groups]\naudit = "audit"\n')
    made = msgspec.structs.replace(right(f'{PAGE}operators = ["ops"]\nauditors = ["audit", "dba"]\n{provider}'),
                                   groups={"dba": ("user:ada",)})
    (said,) = advice.lax(made)
    assert said.startswith("[web] operators: nobody is in a group 'ops'")
