"""`./bootstrap test-vm`: build the image, boot a machine, clone HEAD into it, run the steps, write what came out.

    python -m vm [--quick | --suite SUITE] [--only STEP ...] [--pytest PATHS] [--packages DIR] [--hold] [--kvm]
                 [--results FILE]

`--quick` installs nothing: this host's installation and its checkout as it lies there go in (quick.py), and no step is
run but those that are asked for.  `--hold` leaves the machine running after the steps, and says how to log in; each
line that it is given is run as a shell command there, in a quick machine on the checkout as it lies there by then,
until an empty line or the end of input.  `--packages` takes in what packaging/build has made here, for the step that
would build it there (half an hour, emulated).

`--suite trixie` boots a Debian 13, where nothing is installed but the package, built for it (`python -m debhost trixie
DIR` makes both versions of it).
"""
from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vm import host, image, quick
from vm.machine import Done, Machine, MachineError, machine
from vm.steps import DEBIANS_PYTEST, ELSEWHERE, FACTS, INSTALLING, PACKAGES, PYTEST, STEPS, Step, pytest

ROOT: Final = Path(__file__).resolve().parents[2]
INSTALLED: Final = Path("/opt/weir")   # where bootstrap puts it in the guest
HELD_SECONDS: Final = 3600
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
    quick: bool = False
    suite: str = image.SUITE

    @property
    def failed(self) -> bool:
        return any(done.status for _, done in self.steps)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def name_of_head() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True,
                              timeout=60).stdout.strip()
    return git("log", "-1", "--format=%h") + (" with changes" if git("status", "--porcelain") else "")


def prepare(guest: Machine) -> None:
    """A clone of HEAD in the user's home, and what this host needs to reach registries."""
    files = host.read()
    for path, text in files.texts.items():
        guest.write(path, text.encode())
    for name, text in files.authorities.items():
        guest.write(f"/usr/local/share/ca-certificates/{name}", text.encode())
    with tempfile.NamedTemporaryFile() as bundle:
        subprocess.run(["git", "-C", str(ROOT), "bundle", "create", "-q", bundle.name, "HEAD"], check=True, timeout=60)
        guest.write("/tmp/weir.bundle", Path(bundle.name).read_bytes())
    done = guest.run("sudo update-ca-certificates && git clone -q /tmp/weir.bundle weir", seconds=300)
    if done.status:
        raise MachineError(f"the clone: {done.output}")


def show(step: Step, guest: Machine, prefix: Path) -> Done:
    say(f"--- {step.name} (at most {step.seconds / 60:.0f} min)")
    done = go_through(step, lambda command: guest.run(
        f"cd weir && WEIR_PREFIX={shlex.quote(str(prefix))} && {command}", seconds=step.seconds,
        each=lambda line: print(f"    {line}", flush=True) if TOLD.search(line) else None), guest.reboot)
    say(f"    {outcome(done)} after {done.seconds:.0f} s")
    if done.status:
        print(done.output[-6000:], flush=True)
    return done


def go_through(step: Step, run: Callable[[str], Done], reboot: Callable[[], float]) -> Done:
    """The command; then, as often as is asked for, a boot, what follows it, and the command again before the next."""
    done = run(step.command)
    for number in range(step.boots):
        if done.status or (number and (done := joined(done, run(step.command))).status):
            break
        say(f"    boot {number + 1}: up after {reboot():.0f} s")
        done = joined(done, run(step.then))
    return done


def joined(one: Done, other: Done) -> Done:
    return Done(other.status, f"{one.output}\n{other.output}", one.seconds + other.seconds)


def outcome(done: Done) -> str:
    """In words: what pytest said, or whether it went well."""
    found = SUMMARY.findall(COLOURS.sub("", done.output))
    ended = "passed" if done.status == 0 else "out of time" if done.status == 124 else f"failed ({done.status})"
    return f"{ended}: {found[-1]}" if found else ended


def go(
    steps: Sequence[Step], *, hold: bool, kvm: bool, results: Path | None, fast: bool, packages: Sequence[Path],
    suite: str,
) -> Run:
    """`results` is written after each step: a run that is cut short has said something."""
    say("image")
    more = image.quick_packages() if fast else image.package_packages() if suite != image.SUITE else ()
    built = image.build(WORK, host.apt_options(), more, suite)
    prefix = quick.PREFIX if fast else INSTALLED
    with machine(built, WORK, kvm=kvm, disk=quick.disk if fast else lambda _: ()) as guest:
        say(f"booting; console: {guest.log}")
        run = Run(name_of_head(), guest.wait_booted(), quick=fast, suite=suite)
        say(f"up after {run.booted:.0f} s: {shlex.join(guest.ssh())}")
        if fast:
            quick.prepare(guest, ROOT)
        else:
            prepare(guest)
        for package in packages:
            guest.write(f"{PACKAGES}/{package.name}", package.read_bytes())
        for name, command in FACTS.items():
            run.facts[name] = ", ".join(guest.run(command, seconds=60).output.splitlines())
            say(f"{name}: {run.facts[name]}")
        for step in steps:
            run.steps.append((step, show(step, guest, prefix)))
            if results:
                results.write_text(render(run))
            if step.needed and run.steps[-1][1].status:
                break
        if hold:
            obey(guest, prefix, fast=fast)
    return run


def obey(guest: Machine, prefix: Path, *, fast: bool) -> None:
    """Lines of standard input, each a shell command of the machine's user."""
    say("the machine is held: a line is a command, an empty one ends it")
    for line in sys.stdin:
        if not line.strip():
            return
        try:
            if fast:
                quick.push(guest, ROOT)
        except MachineError as reason:
            say(str(reason))
            continue
        done = guest.run(f"cd weir && export WEIR_PREFIX={shlex.quote(str(prefix))} && {line}", seconds=HELD_SECONDS,
                         each=lambda one: print(one, flush=True))
        say(f"{done.status} after {done.seconds:.0f} s")


def render(run: Run) -> str:
    """docs/results/vm.md."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in run.facts.items())
    rows = "\n".join(f"| {step.name} | {outcome(done)} | {done.seconds:.0f} s |" for step, done in run.steps)
    lines = [line for _, done in run.steps for line in SKIPPED.findall(COLOURS.sub("", done.output))]
    rest = "\nNot passed:\n\n```\n" + "\n".join(lines) + "\n```\n" if lines else ""
    release = image.NAMES[run.suite].replace("debian-", "Debian ")
    return (f"# Last results of `./bootstrap test-vm`\n\n{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, commit "
            f"{run.commit}: a fresh {release} in a virtual machine of one processor, up after {run.booted:.0f} s"
            f"{'; quick: what bootstrap had installed on its host was put in' if run.quick else ''}.\n\n"
            f"| machine | |\n|---|---|\n{facts}\n\n| step | outcome | time |\n|---|---|---|\n{rows}\n{rest}")


def chosen(given: argparse.Namespace) -> list[Step]:
    """Without a choice every step of that release, or, on a quick machine, none."""
    steps, by = (STEPS, PYTEST) if given.suite == image.SUITE else (ELSEWHERE, DEBIANS_PYTEST)
    asked, own = given.only or [], [pytest(paths, paths, given.minutes, by) for paths in given.pytest or ()]
    if not asked and not own and not given.quick:
        return list(steps)
    return [*(step for step in steps if step.name in asked and not (given.quick and step in INSTALLING)), *own]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vm")
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS],
                        help="only this step; may be repeated")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="with this host's installation; only what is asked for")
    kind.add_argument("--suite", choices=list(image.NAMES), default=image.SUITE, help="of Debian; bookworm")
    parser.add_argument("--pytest", action="append", metavar="PATHS", help="these tests (and options); may be repeated")
    parser.add_argument("--minutes", type=float, default=60, help="that --pytest may take; 60")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="the .deb files there go in")
    parser.add_argument("--hold", action="store_true", help="leave the machine running; see there")
    parser.add_argument("--kvm", action="store_true", help="by KVM; without it the processor is emulated")
    parser.add_argument("--results", type=Path, help="write what came out there (Markdown)")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    given = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that the machine and its disk go
    try:
        run = go(chosen(given), hold=given.hold, kvm=given.kvm, results=given.results, fast=given.quick,
                 packages=sorted(given.packages.glob("*.deb")) if given.packages else (), suite=given.suite)
    except (MachineError, image.ImageError) as reason:
        print(f"test-vm: {reason}", file=sys.stderr)
        return 2
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
