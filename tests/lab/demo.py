"""`./bootstrap demo`: a real CrewAI crew on a real PostgreSQL through Weir, in about a minute.

What is not real is the mind: a script in place of a language model chooses the SQL.  Everything else is what it says.
"""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from lab.hosts import MODEL
from lab.lab import MODEL_PORT, Lab, lab
from lab.postgresql import NAME
from lab.weir import APPROVER, AUDITOR, Installed, weir

HERE = Path(__file__).resolve().parent
COLOUR = (sys.stdout.isatty() and "NO_COLOR" not in os.environ) or os.environ.get("FORCE_COLOR") == "1"
TITLE, QUIET, GOOD, WARN, END = ("\033[1;36m", "\033[2m", "\033[32m", "\033[33m", "\033[0m") if COLOUR else [""] * 5
CREW_TIMEOUT = 900.0                  # seconds, on an emulated processor too
QUESTION = re.compile(r"^CREW (.*)")


def say(text: str, colour: str = "") -> None:
    print(f"{colour}{text}{END if colour else ''}", flush=True)


def chapter(text: str) -> None:
    say(f"\n{'─' * 4} {text} {'─' * max(4, 90 - len(text))}", TITLE)


class Approvals(threading.Thread):
    """The second person: sees what is held, looks at it, approves it; by Weir's own command and own user."""

    def __init__(self, installed: Installed) -> None:
        super().__init__(daemon=True)
        self._installed, self.over = installed, threading.Event()
        self.approved = 0

    def run(self) -> None:
        while not self.over.wait(0.5):
            done = self._installed.weir("approvals", "list", "--json", user=APPROVER)
            try:
                held = json.loads(done.stdout)
            except ValueError:
                continue
            for one in held.get("holds", held) if isinstance(held, dict) else held:
                self._approve(one["ticket"])

    def _approve(self, ticket: str) -> None:
        listed = self._installed.weir("approvals", "list", user=APPROVER)
        say(f"\n{APPROVER}$ weir approvals list", WARN)
        say(listed.stdout.rstrip())
        say(f"{APPROVER}$ weir approvals approve {ticket} --reason 'cancelled orders may go'", WARN)
        done = self._installed.weir(
            "approvals", "approve", ticket, "--reason", "cancelled orders may go", user=APPROVER)
        say((done.stdout + done.stderr).rstrip() + "\n")
        self.approved += done.returncode == 0


def run_crew(installed: Installed) -> int:
    """The crew's own words as they come."""
    made = installed.lab
    script = made.give(HERE / "crew" / "shop_crew.py")
    python = installed.prefix.parent / "crew" / "bin" / "python"
    uri = (f"postgresql+psycopg2://crew_svc:not-the-password@{NAME}/shop"
           f"?sslmode=verify-full&sslrootcert={made.home}/db-ca.pem")
    command = [str(python), str(script), uri, f"http://model.lab.example:{MODEL_PORT}/v1"]
    say(f"crew$ weir run --workload crew -- python shop_crew.py {uri} ...", QUIET)
    process = subprocess.Popen(
        installed.crew_argv(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=made.home,
        env=made.client_environment({"PYTHONWARNINGS": "ignore"}), stdin=subprocess.DEVNULL,
    )
    timer = threading.Timer(CREW_TIMEOUT, process.kill)
    timer.start()
    log = made.scratch / "crew.log"
    assert process.stdout is not None
    with process.stdout as lines, open(log, "w") as kept:
        for line in lines:
            kept.write(line)
            match = QUESTION.match(line)
            if match:
                say(f"  crew: {match[1]}", GOOD)
    timer.cancel()
    code = process.wait()
    if code != 0:
        say(log.read_text()[-3000:])
    return code


def show(installed: Installed, *arguments: str, user: str = "") -> subprocess.CompletedProcess[str]:
    say(f"{user or 'root'}$ weir {' '.join(arguments)}", QUIET)
    done = installed.weir(*arguments, user=user)
    say((done.stdout + done.stderr).rstrip())
    return done


def story(made: Lab) -> int:
    chapter("Weir starts on the crew's host: probes, nftables, enforcer, recorder")
    with weir(made, labels=True, payload="rows", unit=False) as installed:
        show(installed, "status")
        chapter("A crew works: four questions, unmodified crewai and NL2SQLTool, a password that is not the database's")
        approvals = Approvals(installed)
        approvals.start()
        code = run_crew(installed)
        approvals.over.set()
        approvals.join(30)
        installed.settle()
        chapter("What an auditor sees: the sessions, one of them replayed, the chain verified")
        directory = ["--recording", str(installed.recording)]
        show(installed, "sessions", *directory, user=AUDITOR)
        session = longest(installed)
        show(installed, "replay", session, *directory, user=AUDITOR)
        verified = show(installed, "verify", *directory, user=AUDITOR)
        chapter("How to go on")
        say(NEXT)
        good = code == 0 and verified.returncode == 0 and approvals.approved == 1
        if not good:
            say(f"the demo did not go as it should: crew {code}, approved {approvals.approved}, verify "
                f"{verified.returncode}", WARN)
        return 0 if good else 1


def longest(installed: Installed) -> str:
    """The session with the most operations of the crew."""
    done = installed.weir("sessions", "--json", "--recording", str(installed.recording), user=AUDITOR)
    sessions = json.loads(done.stdout)
    crew = [one for one in sessions if one["workload"] == "crew"]
    return str(max(crew, key=lambda one: one["operations"])["session"])


NEXT = f"""The lab goes away now.  With a database and a model of your own:

  1. sudo ./bootstrap clean                where your crew runs on this host: what the demo installed goes
  2. sudo ./bootstrap package && sudo apt install ./dist/weir_*.deb
  3. sudo weir init                        finds your crew, and the database and model that it talks to; shows the
     configuration that it would write, and says at its end what comes next: a password, weir check, the agent
  4. weir status                           says "enforcing"
  5. sudo weir run --workload crew --user crew -- python3 your_crew.py
     (the crew keeps its host name, port and client; whatever password it holds is not the real one any more)

README.md has the same in more words, and by hand; docs/policy.md how to permit, hold and mask.  The model of this demo
answered from {MODEL.ipv4}:{MODEL_PORT}: give LLM(base_url=...) your own."""


def main() -> int:
    say("Weir: a crew's database session, attributed, decided, masked and recorded.", TITLE)
    say("Making a lab of network namespaces: a crew's host, a PostgreSQL with TLS, a name server, a model.", QUIET)
    try:
        with lab() as made:
            return story(made)
    except KeyboardInterrupt:
        say("interrupted: the lab is taken away")
        return 130


if __name__ == "__main__":
    sys.exit(main())
