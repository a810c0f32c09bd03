"""A reload under load, on a real PostgreSQL: each decision is explained by one configuration, whole."""
from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from clients.test_clients import environment
from lab.lab import Lab
from lab.weir import GROUPS, LABELS, POLICY, Installed, configure, weir

pytestmark = [pytest.mark.lab, pytest.mark.slow]

# One permits group `red` and shows addresses, masking keys; the other permits `blue` and shows keys, masking addresses.
# Whatever mixes them denies, or shows both.
RED = POLICY.replace('Group::"data"', 'Group::"red"') + """
@id("may-see") permit (principal, action == Action::"unmask", resource == Label::"red");
"""
BLUE = POLICY.replace('Group::"data"', 'Group::"blue"').replace('@id("', '@id("blue-') + """
@id("may-see") permit (principal, action == Action::"unmask", resource == Label::"blue");
"""
CLIENT = """
import subprocess, sys, time
until = time.time() + float(sys.argv[1])
while time.time() < until:
    sql = "".join("SELECT email, api_key FROM customers WHERE id = 1;\\n" for _ in range(20))
    done = subprocess.run(["psql", "-X", "-A", "-t", "-w"], input=sql, capture_output=True, text=True)
    sys.stdout.write(done.stdout + "".join(f"! {line}\\n" for line in done.stderr.splitlines()))
    sys.stdout.flush()
"""


@pytest.fixture
def installed(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab, configure(the_lab, labels=True, policy=RED)) as made, made.overseen():
        yield made


def put(installed: Installed, group: str, policy: str, text: str) -> None:
    etc = installed.config.parent
    hidden = {"red": "api_key", "blue": "email"}[group]
    labels = "".join(
        f'\n[[target.label]]\nlabel = "{group if column != hidden else "secret"}"\n'
        f'column = "public.customers.{column}"\nmask = "redact"\n' for column in ("email", "api_key"))
    installed.config.write_text(text.replace(LABELS.strip(), labels.strip()))
    (etc / "groups.toml").write_text(GROUPS.replace("data =", f"{group} ="))
    [file] = (etc / "policies").glob("*.cedar")
    file.write_text(policy)


def test_no_statement_is_judged_by_a_mixture(installed: Installed) -> None:
    text = installed.config.read_text()
    assert LABELS.strip() in text
    put(installed, "red", RED, text)
    assert installed.weir("reload").returncode == 0
    digests = {installed.status()["configuration"]["digest"]: "red"}  # type: ignore[index]
    said: list[str] = []
    crews = [threading.Thread(target=lambda: said.append(installed.crew(
        "python3", "-c", CLIENT, "20", environment=environment(installed.lab, "wrong")).stdout)) for _ in range(3)]
    for one in crews:
        one.start()
    reloads, until = 0, time.monotonic() + 18
    while time.monotonic() < until:
        group = ("blue", "red")[reloads % 2]
        put(installed, group, BLUE if group == "blue" else RED, text)
        done = installed.weir("reload")
        assert done.returncode == 0, done.stderr
        digests[installed.status()["configuration"]["digest"]] = group  # type: ignore[index]
        reloads += 1
    for one in crews:
        one.join()
    lines = [line for text in said for line in text.splitlines()]
    rows = [line for line in lines if "|" in line and not line.startswith("!")]
    assert len(rows) > 200
    assert len(digests) == 2
    shown = {tuple(bool(part.strip("*")) and "redact" not in part for part in row.split("|")) for row in rows}
    assert (True, True) not in shown, "never what neither of them shows"
    refused = [line for line in lines if "permission denied" in line]
    assert not refused, refused[:5]
    explained(installed, digests, reloads)


def explained(installed: Installed, digests: dict[str, str], reloads: int) -> None:
    """What the recording says of each: by the last configuration before it."""
    installed.settle()
    counts = dict.fromkeys(digests.values(), 0)
    for path in sorted(installed.recording.glob("recording-*.sqlite")):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            assert db.execute("SELECT count(*) FROM configured").fetchone()[0] >= reloads
            for digest, decision, rules, masks, groups, requests in db.execute(
                    "SELECT (SELECT digest FROM configured c WHERE c.seq < i.seq ORDER BY c.seq DESC LIMIT 1), "
                    "decision, rules, masks, o.groups, requests FROM intent i "
                    "JOIN session_opened o ON o.session = i.session "
                    "WHERE i.actor = 'crew' AND i.requests LIKE '%customers%'"):
                name = digests[digest]
                assert decision == 1, (name, rules, requests)
                assert json.loads(groups) == [name], "whose groups are those of the same configuration"
                assert all(("blue" in rule) == (name == "blue") for rule in json.loads(rules) if "shop" in rule)
                assert json.loads(masks) == ["secret"], "the other one's label is shown by this one"
                counts[name] += 1
    assert all(count > 20 for count in counts.values()), counts
