"""Lines -> what they do, from a text table; whatever the bytes, an answer in bounded time."""
from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from enforcer.protocols.ssh.shell.analysis import LONGEST, MOST, SCRIPTS, WITHIN, analyse_line
from enforcer.protocols.ssh.shell.lexer import DEPTH, TOKENS

TABLE = Path(__file__).parent / "lines.table"
SECONDS = 1.0                         # of a processor, for any line


def rows() -> Iterator[tuple[bytes, list[str]]]:
    line, wanted = b"", list[str]()
    for text in TABLE.read_text().splitlines():
        if text.startswith("$ "):
            if line:
                yield line, wanted
            line, wanted = unescape(text[2:]).encode("latin-1"), []
        elif text.startswith("    "):
            wanted.append(unescape(text[4:]))
    yield line, wanted


def unescape(text: str) -> str:
    return text.encode().decode("unicode_escape")


def shown(line: bytes) -> list[str]:
    found = analyse_line(line)
    return [
        *(f"exec{'' if one.literal else '?'} {one.line}" for one in found.commands),
        *(f"{one.how}{'' if one.literal else '?'} {one.path}" for one in found.redirections),
        *(f"set{'' if one.literal else '?'} {one.name}={one.value}" for one in found.assignments),
        *(f"opaque {reason}" for reason in found.opaque)]


@pytest.mark.parametrize(("line", "wanted"), [pytest.param(*row, id=row[0].decode("latin-1")) for row in rows()])
def test_lines(line: bytes, wanted: list[str]) -> None:
    assert shown(line) == wanted


def test_a_command_has_its_words() -> None:
    command = analyse_line(b"/bin/rm -rf 'a b'").commands[0]
    assert (command.program, command.arguments, command.literal) == ("/bin/rm", ("-rf", "a b"), True)


@pytest.mark.parametrize(("line", "plain"), [
    (b"scp -t ~/x", 3), (b" ls\n", 1), (b"sudo ls", 2),
    (b"ls; ls", 0), (b"ls > x", 0), (b"A=1 ls", 0), (b"! ls", 0), (b"(ls)", 0), (b"ls $X", 0), (b"ls *", 0),
    (b"ls # x", 0), (b"ls | ls", 0), (b"ls <<< x", 0), (b"for i in a; do ls; done", 0), (b"ls `id`", 0), (b"", 0),
    (b"ls &", 0),
])
def test_what_is_one_command_and_nothing_else(line: bytes, plain: int) -> None:
    assert len(analyse_line(line).plain) == plain


HOSTILE = (
    b"$(", b"`a ", b"(", b'"$(', b"${a", b"<<a ", b"a ", b"<", b"if ", b"a;", b"a|", b"{ ", b"$((",
    b"case a in ", b"\n", b"a=(", b"a&&", b"<(", b"'", b'"', b"\\", b"[[ ", b"for i in a; do ", b"f() { ",
    b"sh -c '", b"! ", b"a>b ", b"x=1 ", b"${a:-", b"#\n", b"<<<a ", b"find -exec a + ", b"eval ", b"sudo ",
    b"<<A\n", b"a<<A;", b"*", b"{a,", b"~", b"\xc3\xa9",
)


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1, 4096])
def test_hostile_lines_end_in_bounded_time(piece: bytes, size: int) -> None:
    begin = time.process_time()
    found = analyse_line((piece * size)[:size])
    assert time.process_time() - begin < SECONDS
    assert len(found.commands) <= MOST
    if size > LONGEST:
        assert found.opaque == (f"longer than {LONGEST} bytes",)


@pytest.mark.parametrize(("before", "after"), [
    ("echo $(", ")"), ("( ", ")"), ('echo "$(', ')"'), ("cat <(", ")"), ("{ ", "; }"), ("if ", "; then ls; fi")])
def test_nesting_is_bounded(before: str, after: str) -> None:
    for depth in (3, DEPTH, 200, 2000):
        begin = time.process_time()
        found = analyse_line((before * depth + "ls" + after * depth).encode())
        assert time.process_time() - begin < SECONDS
        assert bool(found.opaque) == (depth > DEPTH) or before in ("{ ", "if ")


def test_shells_in_shells_are_bounded() -> None:
    assert not analyse_line(b"eval " * (SCRIPTS - 1) + b"ls").opaque
    assert any("shells in shells" in reason for reason in analyse_line(b"eval " * 1000 + b"ls").opaque)
    assert not analyse_line(b"nohup " * (WITHIN - 1) + b"ls").opaque
    assert any("run each other" in reason for reason in analyse_line(b"nohup " * 1000 + b"ls").opaque)


def test_many_words_are_opaque() -> None:
    assert not analyse_line(b"ls" + b" a" * 1000).opaque
    assert analyse_line(b"ls" + b" a" * TOKENS).opaque
    assert analyse_line(b"ls;" * (MOST + 1)).opaque


PIECES = st.sampled_from([
    "a", "rm", " ", " ", "'", '"', "\\", "$", "`", "(", ")", "{", "}", "\n", ";", "&", "|", "<", ">", "#", "!",
    "~", "=", "*", "$(", "$((", "${", "<<E", "\nE\n", "<(", "&&", "2>", "if ", "then ", "; fi", "for i in ",
    "; do ", "; done", "[ ", " ]", "[[ ", "case ", "env ", "exec ", "eval ", "sh -c ", "sudo -", "xargs ",
    "find -exec ", "\0", "\r", "é", "\x85", "export ", "X=1 ", "function ", "$'", "time ", "su -c ", "-", "{}",
    "\t",
])


@settings(max_examples=400, deadline=2000)
@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=24).map(lambda one: "".join(one).encode())))
@example(b"\xed\xa0\x80")
@example("a\u00a0b".encode())
def test_whatever_comes_there_is_an_answer(line: bytes) -> None:
    found = analyse_line(line)
    assert found.commands or found.redirections or found.assignments or found.opaque
    assert all(one.program and one.line for one in found.commands)
    assert not (found.opaque and found.plain)


@settings(max_examples=200, deadline=2000)
@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"])), min_size=1, max_size=6))
def test_what_shlex_joins_is_read_back(words: list[str]) -> None:
    """What clients write that quote each word: Ansible, Fabric."""
    assume("=" not in words[0])       # shlex leaves A=1 an assignment
    found = analyse_line(shlex.join(words).encode())
    if not found.opaque and found.commands[0].literal:
        assert found.commands[0].line == shlex.join(words)
        assert (found.commands[0].program, *found.commands[0].arguments) == tuple(words)
