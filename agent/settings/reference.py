"""Pure: the example file and the reference of the configuration, from the one table of fields (agent/config.py).

`python -m agent.settings.reference` writes both; a test compares them with what is committed.
"""
from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

from agent.config import MANY, SINGLE
from agent.settings.fields import REQUIRED, Field, Section

EXAMPLE: Final = Path("packaging/default/weir.toml")
REFERENCE: Final = Path("docs/reference-configuration.md")
_WIDTH: Final = 116
# What else would be the same in the tables of two protocols.
_EXAMPLES: Final = {
    ("ssh", "name"): "web", ("ssh", "protocol"): "ssh", ("ssh", "label"): "secret.deploy",
    ("ssh", "password_file"): "/etc/weir/credentials/web.password",
    ("kubernetes", "name"): "cluster", ("kubernetes", "protocol"): "kubernetes",
    ("kubernetes", "tls_ca"): "/etc/weir/cluster-ca.pem", ("kubernetes", "exec_user"): "cluster-helper",
    ("kubernetes", "exec"): ["/usr/local/libexec/cluster-token"], ("kubernetes", "path"): "crews/cluster",
    ("kubernetes", "certificate_credential"): "cluster.pem", ("kubernetes", "key_credential"): "cluster.key",
}

_EXAMPLE_HEAD: Final = """\
# Weir: /etc/weir/weir.toml.  Beside it lie groups.toml and policies/*.cedar.
# What is commented out shows the default, or an example.  `weir check` says what is wrong, `weir reload` takes it over.
"""
_REFERENCE_HEAD: Final = """\
# Configuration

<!-- Made by `python -m agent.settings.reference` from the table of fields in agent/config.py. -->

`/etc/weir/weir.toml`, or the file named by `--config`; `groups.toml` and `policies/*.cedar` lie beside it. All of them
belong to root and nobody else may write them. `weir check` names every error with file, line, field and what would be
right. `weir reload` (or SIGHUP) takes a change over; where something is wrong the old configuration stays. Fields
marked *restart* are read when the agent starts.

A path may begin with `~/` only where it says so: it is the home of the user that the workload runs as.

A whole one, for a crew on a PostgreSQL database and a model's API:

```toml
[dns]
resolver = "10.77.0.53"

[[egress]]
name = "model"
addresses = ["model.lab.example"]
ports = [443]

[[workload]]
name = "crew"
users = ["crew"]
directories = ["~"]
read_only = ["/opt/crew"]

[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db.lab.example"]
port = 5432
tls_ca = "/etc/weir/db-ca.pem"
trust = ["~/db-ca.pem"]

[[target.credential]]
user = "crew_svc"
password_file = "/etc/weir/credentials/orders"

[[target.label]]
label = "pii.email"
column = "public.customers.email"
mask = "partial"
```
"""
_GROUPS: Final = """\

## groups.toml
```toml
[groups]
data = ["user:ada", "group:analysts", "workload:crew", "weir:dba"]
dba = ["subject:corp:7b1f0c2e"]

[people]
ada = ["local:ada", "local:ada-admin", "corp:7b1f0c2e"]
```
Each group is a list of members: `user:NAME` (a local user), `group:NAME` (everybody in that Unix group),
`workload:NAME` (everybody who acts through that workload), `subject:PROVIDER:NAME` (a subject of a `[[provider]]`),
`weir:GROUP` (everybody in that other group of this file; none may be in itself). Policies name it as `Group::"data"`,
holds as `approvers=data`.

Where a login or a service identity stands behind a workload, `user:` and `group:` do not count: its groups are those of
`[provider.groups]` and what `subject:`, `workload:` and `weir:` add.

Each of `[people]` is one person, by a key of your choice, and a list of all the names that Weir may know them by:
`local:USER`, a user of this host, and `PROVIDER:SUBJECT`, as `weir whoami` and the recording show it; 16 at most, and
none is two people's. Whoever asked for an operation then answers it by none of them, two of them are one approver where
several are wanted, and `weir lock` of one locks them all. Groups are not shared: each name has its own.

A login joins two names by itself as long as it lasts: the local user and the subject are one person, and so are two
local users who are logged in as one subject. Once they have logged out only `[people]` knows that.
"""


def render_example() -> str:
    """The file as it is installed: it parses, holds every field, and configures nothing."""
    parts = [_EXAMPLE_HEAD]
    for section in SINGLE:
        parts.append(f"\n{_comment(section.meaning)}[{section.name}]\n" + _fields(section))
    for section in MANY:
        for protocol in _protocols(section) or ("",):
            of = f"  Of protocol {protocol}:" if protocol else ""
            parts.append(f"\n{_comment(section.meaning + of)}{_table(section, section.name, protocol)}")
    return "".join(parts)


def _protocols(section: Section) -> tuple[str, ...]:
    """Whose fields differ."""
    return tuple(dict.fromkeys(protocol for one in section.fields for protocol in one.of)) if section.chooser else ()


def _table(section: Section, name: str, protocol: str) -> str:
    text = f"#[[{name}]]\n" + _fields(section, protocol)
    return text + "".join(
        f"\n{_comment(child.meaning)}{_table(child, f'{name}.{child.name}', protocol)}"
        for child in section.inner(protocol))


def _fields(section: Section, protocol: str = "") -> str:
    lines = []
    for one in section.of(protocol):
        example = _EXAMPLES.get((protocol, one.name))
        value = render_value(_shown(one) if example is None else example)
        mark = "# " if one.instead else "#"
        lines.append(f"{_comment(one.meaning)}{mark}{one.name} = {value}\n")
    return "".join(lines)


def _shown(one: Field) -> Any:
    if one.example is not None:
        return one.example
    return "" if one.default in (REQUIRED, None) else one.default


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))


def render_value(value: Any) -> str:
    """TOML of a text, number, boolean, or a list or table of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(render_value, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(name)} = {render_value(one)}" for name, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def render_reference() -> str:
    parts = [_REFERENCE_HEAD]
    for section in (*SINGLE, *MANY):
        parts += _reference(section, section.name)
    return "".join(parts) + _GROUPS


def _reference(section: Section, name: str) -> list[str]:
    head = f"[[{name}]]" if section.many else f"[{name}]"
    rows = [f"\n## {head}\n{section.meaning}\n\n| field | what it is | value | default |\n|---|---|---|---|\n"]
    for one in section.fields:
        restart = " *restart*" if one.restart else ""
        of = f"*{', '.join(one.of)}*: " if one.of else ""
        what = f"{of}{_cell(one.meaning)}{restart}"
        rows.append(f"| `{one.name}` | {what} | {_cell(one.kind.right)} | {_default(one)} |\n")
    for child in section.children:
        rows += _reference(child, f"{name}.{child.name}")
    return rows


def _default(one: Field) -> str:
    if one.default is REQUIRED:
        return "required"
    return "" if one.default is None else f"`{render_value(one.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    EXAMPLE.write_text(render_example())
    REFERENCE.write_text(render_reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
