"""Every question of docs/auditor.md is asked of a recording in which it has an answer.

What databases and clusters are asked comes from the layers themselves, with a real PostgreSQL; the recorder writes it.
Questions about SSH are asked again where a real sshd executes (tests/enforcer/edge/test_ssh_truth.py).
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import kubeplay
import msgspec
import pytest
import tapes
from click.testing import CliRunner
from conftests import conftest_of
from cookbook import answers, questions
from httptalk import request
from pump import Pump, TableGate, query

from agent.cli import weir
from agent.contract.journal import EVENT, HostEvent, render_host_event, render_record
from agent.contract.target import ColumnLabel
from enforcer.recording import weir_verify
from enforcer.words import events
from enforcer.words.commands import Record
from enforcer.words.inputs import HoldAnswered

DAY = int(datetime(2026, 11, 28, 9, tzinfo=UTC).timestamp()) * 10**9
LABELS = (ColumnLabel("pii.email", "public", "people", "email", "partial"),
          ColumnLabel("pii.birth", "public", "people", "born"))

# Question, or its beginning -> what its answer holds.
SAID = {
    "What did this person do": ("SELECT id, email FROM people", "DELETE FROM t WHERE id = 20"),
    "Who was behind each session": ("local:ada", "/usr/bin/psql", "mark"),
    "Who used what": ("local:ada", "orders", "cluster", "web"),
    "Which programs did crews use": ("/usr/bin/psql", "/usr/bin/ssh"),
    "Which operations were denied": ("DROP TABLE t", "GET /api/v1/nodes", "cat /etc/shadow"),
    "Which rule denies how often": ("strict-masking", "no"),
    "Which rule permitted this": ("SELECT name, born FROM people", "yes", "d" * 64),
    "Which connections were refused": ("10.0.0.9 22", "no target and no egress"),
    "What did people approve or deny": ("local:bob", "looked at it", "not today"),
    "What went through by an approval": ("DELETE FROM t WHERE id = 20", "local:bob", "looked at it"),
    "Where was it answered": ("slack U01", "local:bob"),
    "What did somebody let through alone": ("local:carol", "pager"),
    "Who had more for a while": ("ELEVATE1", "elevate for 1h", "revoked"),
    "What did nobody answer": ("EXPIRED1",),
    "Which tool did the crew say": ("clean_orders", "DELETE FROM t WHERE id = 20"),
    "Who logged in": ("corp:7b1f", "login.ended", "data"),
    "Who locked somebody": ("prompt injection", "local:mallory", "session.killed"),
    "Who read this table": ("SELECT id, email FROM people", "SELECT name, born FROM people"),
    "To whom was this column shown": ("SELECT id, email FROM people",),
    "Who may have seen this column": ("SELECT name, born FROM people",),
    "Who tried to learn": ("email = '***'", "it is used in a condition"),
    "What was changed, and how many rows": ("DELETE FROM t WHERE id = 20", "DELETE 1", "UPDATE 1"),
    "Who changed structure": ("deny", "sql:ddl", "DROP TABLE t"),
    "Which statements failed": ("42703", 'column "nothing" does not exist'),
    "Who took away the most": ("local:ada", "orders"),
    "Which session is this process": ("PG", "orders.internal"),
    "Who logged in to which account": ("deploy@web",),
    "Who ran what where": ("deploy@web", "tar c /srv | gzip > /tmp/x", "exit 0"),
    "Which programs, one by one": ("tar c /srv", "gzip"),
    "Which lines could nobody tell": ("shell", "sh -s"),
    "Which files were written": ("ssh:exec-write", "/tmp/x", "sftp:write", "/srv/app/new.tar"),
    "Did this file go through": ("/srv/app/new.tar",),
    "What was denied, and why": ("cat /etc/shadow", "nobody reads it"),
    "Which connections had several": ("yes",),
    "Where did tunnels lead": ("db.internal 5432", "TUNNELLED", "SSH"),
    "What does the recording not show": ("5000", "12 bytes were not shown", "[7]"),
    "What was typed at a terminal": ("uptime",),
    "Which labelled files and commands": ("cat /etc/app/x.key", "secret.deploy"),
    "What was changed, by whom": ("shop/pods/web", "delete", "200"),
    "Who got into which pod": ("exec", "-- ls"),
    "Who read Secrets": ("GET /api/v1/namespaces/shop/secrets/a",),
    "What was denied, or refused before policy": ("GET /api/v1/nodes", "shop//pods"),
    "By which name is a request": ("KUBE-3",),
    "Whose logs were read": ("shop/pods/log/web",),
    "Who acted as somebody else": ("user system:admin",),
    "Which workloads were started": ("python crew.py", "local:ada"),
    "Where did crews go": ("10.0.0.2 443", "model"),
    "What would be refused": ("TLS for 'api.example'",),
    "Which names were asked for": ("evil.example",),
    "Which connections does nobody": ("connect.unaccounted", "socket.foreign"),
    "When did Weir not enforce": ("degraded", "rules were gone"),
    "Which configuration was in force": ("d" * 64, "/etc/weir/weir.toml"),
    "Which keys and authorities": ("key.rotated", "local:root"),
    "Who read this recording": ("read", "sessions"),
    "What was erased": ("article 17",),
    "What can this recording not tell": ("killed", "journal.malformed"),
    "Up to where is it signed": (re.compile(r"\('?\d+"),),
}
# Question -> what the command prints.
PRINTED = {
    "Who was connected lately": ("local:ada", "orders"),
    "What happened in this session": ("SELECT id, email FROM people", "DROP TABLE t"),
    "Also what Weir itself": ("Execute of a portal that cannot exist",),
    "Where was this word said": ("SELECT name, born FROM people",),
    "What waited for people": ("approved", "local:bob"),
    "How did this one request go": ("TICKET1", "looked at it"),
    "Is every connect": ("10.0.0.9 5432: nobody recorded it",),
    "Which places did crews reach": ("[[egress]]", "api.example"),
    "Give me this session": (),
    "Give me every operation": (),
    "Is the recording complete": ("verified",),
}


port = conftest_of("enforcer/protocols/postgresql").port


class Told:
    """A day of a crew, recorded."""

    def __init__(self, scene) -> None:
        self.scene, self.writer = scene, scene.writer()

    def take(self, records: list[Record], session: str, **opened) -> None:
        """What a layer has recorded, as this session."""
        for record in records:
            self.scene.at += 1000
            event = msgspec.structs.replace(record.event, at=self.scene.at, session=session)
            if isinstance(event, events.SessionOpened):
                event = msgspec.structs.replace(event, **opened)
            self.writer.append(event, record.blobs)

    def say(self, event: msgspec.Struct) -> None:
        self.writer.append(event)

    def operate(self, session: str, number: int, verb: str, text: str, *requests: tuple[str, str], tag: str = "",
                stream: tuple[tuple[int, str, bytes], ...] = (), kept: int = -1, **more) -> None:
        decision = more.get("decision", 1)
        self.writer.append(*self.scene.intent(number, session, text.encode(), verb=verb, requests=requests,
                                              **{"masks": (), **more}))
        for event, blobs in tapes.flow(*stream, at=self.scene.at, session=session, operation=number):
            if kept >= 0 and isinstance(event, events.StreamEnded):
                event = msgspec.structs.replace(event, kept=kept)
            self.writer.append(event, blobs)
        if tag:
            self.writer.append(*self.scene.result(number, session, tag=tag, status="denied" if decision == 2 else "ok"))

    def hold(self, state: str, ticket: str, by: str = "", reason: str = "", form: str = "hold",
             what: str = "sql:delete public.t", note: str = "") -> None:
        self.scene.at += 1000
        self.say(events.HoldChanged(
            events.HOLD, self.scene.at, 1, "" if form == "elevation" else "PG", 0, ticket, state, by, reason,
            self.scene.at, b"\1" * 32, form, "local:ada", "orders", what, note))

    def host(self, name: str, /, **detail: str) -> None:
        self.scene.at += 1000
        path = self.scene.journal / f"agent-{os.urandom(8).hex()}-0.journal"
        path.write_bytes(render_host_event(HostEvent(events.HOST, self.scene.at, 1, name, "crew", detail)))


def database(told: Told, port: int) -> None:
    pump = Pump(port, "app", "shop", TableGate(
        deny={("sql:ddl", "t")}, hold={("sql:delete", "t")}, unmasked={"pii.birth"}), labels=LABELS, payload="rows")
    pump.on_hold = lambda hold: HoldAnswered(hold.operation, "approved", "local:bob", "looked at it", "T-1")
    for text in ("SELECT id, email FROM people", "SELECT name, born FROM people",
                 "SELECT count(*) FROM people WHERE email = 'ada@x.example'", "DROP TABLE t", "SELECT nothing FROM t",
                 "UPDATE t SET note = 'x' WHERE id = 3"):
        pump.send(query(text))
        pump.until_ready()
    pump.calls = (("billing", "janitor", "tidy up", "clean_orders"),)
    pump.send(query("DELETE FROM t WHERE id = 20"))
    pump.until_ready()
    ticketed = [msgspec.structs.replace(record, event=msgspec.structs.replace(record.event, ticket="TICKET1"))
                if getattr(record.event, "ticket", "") else record for record in pump.records]
    told.take(ticketed, "PG", target="orders", subject="local:ada", exe="/usr/bin/psql",
              upstream="app@orders.internal:5432")
    pump.wire.socket.close()
    for state, by, reason, note in (("pending", "", "", ""), ("pending", "local:ann", "fine by me", "assented"),
                                    ("approved", "local:bob", "looked at it", ""), ("used", "", "", "")):
        told.hold(state, "TICKET1", by, reason, note=note)
    told.say(told.scene.closed("PG"))


def cluster(told: Told) -> None:
    session = kubeplay.KubernetesSession(TableGate(deny={("k8s:list", "nodes")}), 1 << 20)
    session.hear("client", request("GET", "/api/v1/nodes"))
    session.hear("client", request("GET", "/api/v1/namespaces/shop//pods"))
    session.hear("client", request("GET", f"{kubeplay.PODS}/web/log", b"", "Impersonate-User: system:admin"))
    session.hear("server", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    for who, data in kubeplay.BOOK:
        session.hear(who, data)
    session.lose()
    told.take(session.inner.records, "KUBE", target="cluster", subject="local:ada", exe="/usr/bin/kubectl")


def ssh(told: Told) -> None:
    """The form of these is what test_ssh_truth.py finds."""
    opened, key = told.scene.opened, "0123456789abcdef" + "0" * 48
    told.say(opened("SSH", protocol="ssh", target="web", database="", role="deploy", subject="local:ada",
                    exe="/usr/bin/ssh"))
    told.say(opened("TUNNELLED", subject="local:ada", attribution="tunnel"))
    told.operate("SSH", 1, "exec", "tar c /srv | gzip > /tmp/x", ("ssh:exec", "tar c /srv"), ("ssh:exec", "gzip"),
                 ("ssh:exec-write", "/tmp/x"), tag="exit 0", stream=((0, "out", b"x" * 5000),), kept=1000)
    told.operate("SSH", 2, "exec", "cat /etc/shadow", ("ssh:exec", "cat /etc/shadow"), tag="-", decision=2,
                 reason="nobody reads it", rules=("no-shadow",))
    told.operate("SSH", 3, "shell", "", ("ssh:shell", "deploy"), tag="exit 0",
                 stream=((0, "size", b"80x24"), (10, "in", b"uptime\r"), (20, "out", b"up 3 days\r\n")))
    told.operate("SSH", 4, "exec", "sh -s", ("ssh:exec-opaque", "deploy"), tag="exit 0")
    told.operate("SSH", 5, "open", "/srv/app/new.tar", ("sftp:write", "/srv/app/new.tar"),
                 tag=f"wrote 10 bytes sha256={key}")
    told.operate("SSH", 6, "exec", "cat /etc/app/x.key", ("ssh:exec", "cat /etc/app/x.key"), tag="exit 0",
                 masks=("secret.deploy",))
    told.operate("SSH", 7, "forward-local", "db.internal 5432", ("ssh:forward-local", "db.internal 5432"))
    for session, name, value in (("SSH", "shared", "yes"), ("SSH", "unseen", "12 bytes were not shown"),
                                 ("TUNNELLED", "through", "SSH")):
        told.say(events.SessionNoted(events.SESSION_NOTED, told.scene.at, 1, session, name, value))
    told.say(events.Gap(events.GAP, told.scene.at, 1, "SSH", (7,), "the enforcer was killed"))
    told.say(told.scene.closed("SSH"))


def rest(told: Told) -> None:
    at = told.scene.at
    told.say(events.Refused(events.REFUSED, at, 1, "crew", "local:ada", 7, "/bin/nc", "10.0.0.9 22", "",
                            "no target and no egress", ("deny",)))
    told.say(events.FlowOpened(events.FLOW_OPENED, at, 1, "F1", "model", "local:ada", "crew", 7, "/usr/bin/python3", "",
                               (), "10.0.0.2 443", "mark"))
    told.say(events.FlowNoted(events.FLOW_NOTED, at, 1, "F1", "shadow", "tls", "api.example", "name",
                              "TLS for 'api.example'"))
    told.say(events.FlowClosed(events.FLOW_CLOSED, at, 1, "F1", 5, 6, "done"))
    told.hold("pending", "DENIED1")
    told.hold("denied", "DENIED1", "local:bob", "not today")
    told.hold("expired", "EXPIRED1")
    told.hold("approved", "GLASS1", "local:carol", "pager", note="break-glass")
    told.hold("approved", "ELEVATE1", "local:bob", "", "elevation", "elevate for 1h")
    told.hold("cancelled", "ELEVATE1", "local:bob", "", "elevation", "elevate for 1h", "revoked")
    told.host("approval.answered", ticket="TICKET1", answer="approve", by="local:bob", reason="looked at it", error="",
              way="slack U01")
    told.host("launch", user="crew", by="local:ada", command="python crew.py")
    told.host("login.opened", subject="corp:7b1f", user="ada", groups="data")
    told.host("login.ended", subject="corp:7b1f", user="ada", reason="logged out")
    told.host("lock", what="subject", name="local:mallory", by="local:root", reason="prompt injection")
    told.host("session.killed", session="PG", by="local:root", reason="enough", error="")
    told.host("dns.answered", name="api.example", addresses="10.0.0.2", type="A", rcode="NOERROR")
    told.host("dns.refused", name="evil.example", reason="no target and no egress")
    told.host("connect.unaccounted", cookie="ab", pid="7", destination="10.0.0.9 5432", why="nobody recorded it")
    told.host("socket.foreign", pid="7", peer="10.0.0.9 5432", done="ended")
    told.host("degraded", reason="rules were gone")
    told.host("enforcing")
    told.host("key.rotated", key="mask", by="local:root", before="a", after="b", reason="yearly")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Path]:
    umask = os.umask(0o022)               # which the recorder and its commands set for their own process
    scene = conftest_of("enforcer/recording").Scene(tmp_path_factory.mktemp("cookbook"))
    scene.at = DAY
    told = Told(scene)
    told.say(events.Configured(events.CONFIGURED, DAY, 1, "d" * 64, {"/etc/weir/weir.toml": "e" * 64}, "f" * 16))
    database(told, port)
    cluster(told)
    ssh(told)
    told.say(scene.opened("OLD", subject="local:bob"))
    told.operate("OLD", 1, "query", "SELECT 'a name to forget'", ("sql:select", "public.t"), tag="SELECT 1")
    told.say(scene.closed("OLD"))
    rest(told)
    (scene.journal / f"agent-{os.urandom(8).hex()}-0.journal").write_bytes(render_record(EVENT, b"no event"))
    told.writer.flush()
    scene.start()
    scene.turn(3)
    for words in (("sessions",), ("erase", "--session", "OLD", "--reason", "article 17")):
        done = CliRunner().invoke(weir, [*words, "--recording", str(scene.recording)])
        assert done.exit_code == 0, done.output
        if scene.recorder:
            scene.turn(2)
            scene.stop()              # who erases while there is none does it by themselves
    os.umask(umask)
    yield scene.recording
    scene.close()


def beginnings(language: str, known: dict[str, tuple]) -> list[tuple[str, str]]:
    """Question and the beginning by which it is known here."""
    found = []
    for question in questions(language):
        of = [one for one in known if question.startswith(one)]
        found.append((question, max(of, key=len) if of else ""))
    return found


def test_every_question_has_an_answer_here() -> None:
    for language, known in (("sql", SAID), ("sh", PRINTED)):
        asked = beginnings(language, known)
        assert [question for question, of in asked if not of] == []
        assert {of for _, of in asked} == set(known)
    assert len(questions("sql")) + len(questions("sh")) >= 60


@pytest.mark.parametrize(("question", "of"), beginnings("sql", SAID), ids=lambda one: one[:40])
def test_a_question_is_answered(recording: Path, question: str, of: str) -> None:
    rows = answers(recording.glob("recording-*.sqlite"), question)
    assert rows
    for word in SAID[of]:
        assert word.search(str(rows)) if isinstance(word, re.Pattern) else word in str(rows), (word, rows)


@pytest.mark.parametrize(("question", "of"), beginnings("sh", PRINTED), ids=lambda one: one[:40])
def test_a_command_answers(recording: Path, tmp_path: Path, question: str, of: str) -> None:
    [line] = questions("sh")[question]
    program, *words = line.split()
    assert program == "weir"
    known = {"SESSION": "PG", "TICKET": "TICKET1"}
    words = [known.get(one, str(tmp_path / one) if "." in one else one) for one in words]
    where = [str(recording)] if words == ["verify"] else ["--recording", str(recording)]
    done = CliRunner().invoke(weir, [*words, *where])
    assert done.exit_code == (1 if words == ["ledger"] else 0), done.output
    for word in PRINTED[of]:
        assert word in done.output
    for made in (Path(one) for one in words if one.startswith(str(tmp_path))):
        assert b"DROP TABLE t" in made.read_bytes()


def test_evidence_verifies_without_weir(recording: Path, tmp_path: Path) -> None:
    """As the page says it: the one file, the key, a checkpoint that somebody kept; and an export."""
    [(_, sequence, _, head, _)] = answers(recording.glob("recording-*.sqlite"), "Up to where is it signed")
    evidence = tmp_path / "evidence.sqlite"
    done = CliRunner().invoke(weir, ["export", "--session", "PG", "-o", str(evidence), "--recording", str(recording)])
    assert done.exit_code == 0, done.output
    whole, key = sorted(recording.glob("recording-*.sqlite")), str(recording / "signing.pub")
    for files, more in ((whole, ["--expect", f"{sequence}:{head}"]), ([evidence], [])):
        said = subprocess.run([sys.executable, "-I", weir_verify.__file__, "--key", key, *more, *map(str, files)],
                              capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
        assert "verified" in said.stdout
