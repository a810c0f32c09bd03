"""`./bootstrap test-vm`: build the image, boot a machine, clone HEAD into it, run the steps, write what came out.

    python -m vm [--only STEP ...] [--hold] [--kvm] [--results FILE]

`--hold` leaves the machine running after the steps until a key is pressed, and says how to log in.
"""
from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vm import host, image
from vm.machine import Done, Machine, MachineError, machine
from vm.steps import FACTS, STEPS, Step

ROOT: Final = Path(__file__).resolve().parents[2]
WORK: Final = Path(os.environ.get("WEIR_VM", "/var/tmp/weir-vm"))
TOLD: Final = re.compile(r"==>|weir-agent:|bootstrap:|FAILED|ERROR|[0-9]+ (passed|failed)")
SUMMARY: Final = re.compile(r"(?m)^(?:=+ )?([0-9]+ (?:passed|failed|errors?|skipped|deselected).*?) in [0-9.]+s")
SKIPPED: Final = re.compile(r"(?m)^(?:FAILED|ERROR|SKIPPED) .*$")
COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Run:
    """What a run showed."""
    commit: str
    booted: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[Step, Done]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(done.status for _, done in self.steps)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def prepare(guest: Machine) -> str:
    """A clone of HEAD in the user's home, and what this host needs to reach registries; gives HEAD's name."""
    files = host.read()
    for path, text in files.texts.items():
        guest.write(path, text.encode())
    for name, text in files.authorities.items():
        guest.write(f"/usr/local/share/ca-certificates/{name}", text.encode())
    with tempfile.NamedTemporaryFile() as bundle:
        subprocess.run(["git", "-C", str(ROOT), "bundle", "create", "-q", bundle.name, "HEAD"], check=True, timeout=60)
        guest.write("/tmp/weir.bundle", Path(bundle.name).read_bytes())
    done = guest.run("sudo update-ca-certificates && git clone -q /tmp/weir.bundle weir && "
                     "git -C weir log -1 --format=%h", seconds=300)
    if done.status:
        raise MachineError(f"the clone: {done.output}")
    return done.output.splitlines()[-1]


def show(step: Step, guest: Machine) -> Done:
    say(f"--- {step.name} (at most {step.seconds / 60:.0f} min)")
    done = guest.run(f"cd weir && {step.command}", seconds=step.seconds,
                     each=lambda line: print(f"    {line}", flush=True) if TOLD.search(line) else None)
    say(f"    {outcome(done)} after {done.seconds:.0f} s")
    if done.status:
        print(done.output[-6000:], flush=True)
    return done


def outcome(done: Done) -> str:
    """In words: what pytest said, or whether it went well."""
    found = SUMMARY.findall(COLOURS.sub("", done.output))
    ended = "passed" if done.status == 0 else "out of time" if done.status == 124 else f"failed ({done.status})"
    return f"{ended}: {found[-1]}" if found else ended


def go(steps: Sequence[Step], *, hold: bool, kvm: bool, results: Path | None) -> Run:
    """`results` is written after each step: a run that is cut short has said something."""
    say("image")
    built = image.build(WORK, host.apt_options())
    with machine(built, WORK, kvm=kvm) as guest:
        say(f"booting; console: {guest.log}")
        booted = guest.wait_booted()
        say(f"up after {booted:.0f} s: {' '.join(guest.ssh())}")
        run = Run(prepare(guest), booted)
        for name, command in FACTS.items():
            run.facts[name] = ", ".join(guest.run(command, seconds=60).output.splitlines())
            say(f"{name}: {run.facts[name]}")
        for step in steps:
            run.steps.append((step, show(step, guest)))
            if results:
                results.write_text(render(run))
            if step.needed and run.steps[-1][1].status:
                break
        if hold:
            input("the machine is held; press Enter to end it\n")
    return run


def render(run: Run) -> str:
    """docs/results/vm.md."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in run.facts.items())
    rows = "\n".join(f"| {step.name} | {outcome(done)} | {done.seconds:.0f} s |" for step, done in run.steps)
    lines = [line for _, done in run.steps for line in SKIPPED.findall(COLOURS.sub("", done.output))]
    rest = "\nNot passed:\n\n```\n" + "\n".join(lines) + "\n```\n" if lines else ""
    return (f"# Last results of `./bootstrap test-vm`\n\n{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, commit "
            f"{run.commit}: a fresh Debian 12 in a virtual machine of two processors, up after {run.booted:.0f} s.\n\n"
            f"| machine | |\n|---|---|\n{facts}\n\n| step | outcome | time |\n|---|---|---|\n{rows}\n{rest}")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m vm")
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS],
                        help="only this step; may be repeated")
    parser.add_argument("--hold", action="store_true", help="leave the machine running until Enter is pressed")
    parser.add_argument("--kvm", action="store_true", help="by KVM; without it the processor is emulated")
    parser.add_argument("--results", type=Path, help="write what came out there (Markdown)")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that the machine and its disk go
    try:
        run = go([step for step in STEPS if not given.only or step.name in given.only],
                 hold=given.hold, kvm=given.kvm, results=given.results)
    except (MachineError, image.ImageError) as reason:
        print(f"test-vm: {reason}", file=sys.stderr)
        return 2
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
