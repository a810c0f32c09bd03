"""What shells do with a line is what was told: by real ones, with programs that write down how they were called.

bash and dash are on every host; zsh, fish, mksh and busybox are asked too where they are installed.
"""
from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.protocols.ssh.shell.analysis import analyse_line
from enforcer.protocols.ssh.shell.line import READ, Line

SHELLS = [
    pytest.param([found, *shell.split()[1:]], id=shell)
    for shell in ("bash", "dash", "zsh", "fish", "mksh", "busybox ash")
    if (found := shutil.which(shell.split()[0]))]
STUBS = ("a", "b", "c", "x", "f", "i", "-", "é")
REAL = ("env", "nohup", "nice", "xargs", "sh", "cat", "find", "timeout")
# One write for each call, so that those of a pipeline do not mix.
STUB = """#!/bin/dash
said="${0##*/}\1"
for word; do said="$said$word\1"; done
printf '%s\2' "$said" >> "$LOG"
"""
Calls = list[tuple[str, ...]]


@dataclass(frozen=True)
class Stage:
    place: Path
    shell: list[str]

    def run(self, line: str) -> tuple[Calls, set[str]]:
        """(calls of stubs, files that were written)."""
        work, log = self.place / "work", self.place / "log"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        log.write_bytes(b"")
        surroundings = {"PATH": str(self.place / "bin"), "HOME": str(work), "LOG": str(log), "LANG": "C.UTF-8"}
        with subprocess.Popen([*self.shell, "-c", line], cwd=work, env=surroundings, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            process.communicate(timeout=20)      # its output ends when the last of its children does
        calls = [tuple(call.split("\1")[:-1]) for call in log.read_text().split("\2")[:-1]]
        return calls, {path.name for path in work.iterdir() if path.name[0] != "."}


@pytest.fixture(params=SHELLS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    (tmp_path / "bin").mkdir()
    for name in STUBS:
        (tmp_path / "bin" / name).write_text(STUB)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in REAL:
        found = shutil.which(name)
        assert found
        os.symlink(found, tmp_path / "bin" / name)
    return Stage(tmp_path, request.param)


def told(line: Line) -> Calls:
    return [(one.program, *one.arguments) for one in line.commands if one.program in STUBS]


def difference(line: Line, calls: Calls, files: set[str]) -> str:
    """What happened and was not told."""
    literal = {(one.program, *one.arguments) for one in line.commands if one.literal}
    programs = {one.program for one in line.commands if not one.literal}
    written = {one.path.rpartition("/")[2] for one in line.redirections if one.how != READ}
    return next((f"ran {call}" for call in calls if call not in literal and call[0] not in programs), "") or next(
        (f"wrote {file}" for file in files - written), "")


def words(chance: random.Random) -> list[str]:
    some = ["", " ", "a b", "'", '"', "$X", "`b`", "$(c)", "*", "~", "\\n", "a;b", "&", "|", "#", "{x,y}", "é", "-l"]
    return [chance.choice("abc"), *chance.choices(some, k=chance.randint(0, 3))]


def literal_line(chance: random.Random, depth: int = 0) -> str:
    """All of whose commands run, each once."""
    kind = chance.randint(0, 9 if depth < 3 else 0)
    inner = [literal_line(chance, depth + 1) for _ in range(2 if kind else 0)]
    command = shlex.join(words(chance))
    return {
        0: command, 1: f"{command} > /dev/null", 2: " && ".join(inner), 3: "; ".join(inner), 4: " | ".join(inner),
        5: f"( {inner[0]} )" if inner else "", 6: shlex.join(["sh", "-c", inner[0]]) if inner else "",
        7: f"env X=1 nice -n 1 {command}", 8: "\n".join(inner), 9: f"eval {shlex.quote(inner[0])}" if inner else "",
    }[kind]


def test_what_runs_is_what_was_told(stage: Stage) -> None:
    chance, clear = random.Random(7), 0
    for _ in range(120):
        line = literal_line(chance)
        found = analyse_line(line.encode())
        if found.opaque or not all(one.literal for one in found.commands):
            continue
        clear += 1
        calls, files = stage.run(line)
        assert set(calls) <= set(told(found)), line
        assert set(calls) >= set(told(found)) or "fish" in stage.shell[0], line      # which does not know all of it
        assert not files
    assert clear > 60


SEEDS = (
    "a 'x y' && b > f; c", "(a; b) | c", "{ a; b; } > f", "if a; then b; else c; fi", "sh -c 'a; b \"c\"'",
    "a 2>f <f", "for i in a b; do c \"$i\"; done", "a <<E\nx\nE\nb", "env X=1 a 'b c'", 'a `b` | c "$(a x)"',
    "a \"x; b\" 'y' ; c", "! a || b &\nc", "eval 'a b' c", "nice -n 1 a; nohup b", "X=1 Y=2 a; export Z=3; b",
    "[ a = b ] || c", "a\nb\n#c\nx", "sh -c \"a 'b'\" x y", "echo a | xargs b c", "exec a", "command b x",
    "time a x", "a <(b) >(c)", "a ${X:-b} $((1+2))", "set -e; a; b", "cd x; a", "a \"b\\\"c\" 'd'",
    "a & b & c", "find . -name x -exec a {} \\;", "timeout 5 a x", "a f&", "sh -ec 'a && b' ; c",
    "a | b | c > f", "while a; do b; break; done; c")
PIECES = (
    "a", "b", "a ", "b ", " ", "'", '"', "\\", "$", "`", "(", ")", "{", "}", "{ ", "; }", "\t", "\n", ";", "&",
    "|", "<", ">", "#", "!", "~", "=", "X=1 ", "f", "*", "?", "[", "]", "$(", "$((", "${", "<<E", "\nE\n",
    "<(", "&&", "||", ">>", ">|", "2>", "time ", "if ", "then ", "fi", "for i in ", "; do ", "done", "-",
    "env ", "exec ", "eval ", "sh -c ", "command ", "^", "%", "case ", "in ", "esac", "[[ ", "]]", "function ",
    "$'", "1", "0", "x", "é", "nohup ", "builtin ", "cd ", "\\\n", "->", "@", "+", ",", ":", "f() ", "and ",
    "begin; ", "end", "noglob ", "repeat 2 ", "\\a", "'\\'", "''", '""', "$X", "export Y=", "()", "'; b '",
    '"; b "', "\\'", '\\"', "<<<", "xargs ", "{a,b}", "eval 'b c' ", "sh -c 'a b' ", "false || ")
# Found by this test, with the shell that did otherwise.
FOUND = (
    "a xf&i", 'co""mmand b >| x', "env X=&1 a 'b c'", "time X=1 a x", "a >| c", "é=1 Y=2 a", "a [[ false || 'a b'",
    "a 'x\\' ' ; b y ; '", "r\\a", "a {b,c}", "a &> f", "a >! f", "a <1-5>f", "é=1 a", "a ''=sh -c",
    "a sh -c \\&&0")


def mutated(chance: random.Random) -> str:
    line = chance.choice(SEEDS)
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(line))
        line = line[:at] + chance.choice(PIECES) + line[at + chance.choice((0, 0, 0, 1, 2)):]
    return line


def check(stage: Stage, line: str) -> bool:
    """Only what is told to the end is tried: nothing else of the host is within reach of it."""
    found = analyse_line(line.encode())
    if found.opaque or "while" in line:
        return False
    assert difference(found, *stage.run(line)) == "", line
    return True


@pytest.mark.parametrize("line", FOUND)
def test_what_was_found(stage: Stage, line: str) -> None:
    check(stage, line)


def test_whatever_a_line_is_nothing_happens_that_was_not_told(stage: Stage) -> None:
    chance = random.Random(11)
    assert sum(check(stage, mutated(chance)) for _ in range(300)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_lines(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    assert sum(check(stage, mutated(chance)) for _ in range(2000)) > 200
