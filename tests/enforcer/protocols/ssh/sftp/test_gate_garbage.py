"""Whatever both sides say: no exception but the protocol's, a result for all, nothing to the server before permit."""
from __future__ import annotations

from collections.abc import Callable

from filedesk import FileDesk, secret
from hypothesis import given
from hypothesis import strategies as st
from sftptalk import S, Talk, kinds, named, status, u32, u64

from enforcer.protocols.ssh.sftp import messages as m
from enforcer.words.errors import ProtocolError

PATHS = st.sampled_from([
    b"/", b"/a", b"a", b"", b".", b"..", b"a/", b"//a/../b", b"/a/.", b"/\xff", b"/a\0", b"/secret/x",
])
NAMES = st.sampled_from([b"h", b"H", b"", b"\0\0\0\0"])
NUMBERS = st.integers(0, 5)
ATTRIBUTES = st.sampled_from([u32(0), u32(4, 0o777), u32(1) + u64(3), u32(8, 1, 2), u32(0x80000000, 0), u32(99)])


def field(what: str, value: object) -> bytes:
    if isinstance(value, int):
        return u64(value) if what == "q" else u32(value)
    assert isinstance(value, bytes)
    return value if what == "a" else S(value)


@st.composite
def request(draw: Callable[[st.SearchStrategy[object]], object]) -> bytes:
    kind = draw(st.sampled_from([*range(1, 21), 99, m.EXTENDED]))
    parts: list[bytes] = []
    if kind == m.EXTENDED:
        parts.append(S(draw(st.sampled_from([*m.EXTENSIONS, b"evil"]))))
    for what in draw(st.lists(st.sampled_from("ppphhqia"), max_size=4)):
        source = {"p": PATHS, "h": NAMES, "q": st.integers(0, 9), "i": st.integers(0, 63), "a": ATTRIBUTES}[what]
        value = draw(source)
        parts.append(field(what, value))
    shapes = {m.OPEN: "pia", m.SETSTAT: "pa", m.MKDIR: "pa", m.READ: "hqi", m.CLOSE: "h", m.RENAME: "pp", m.STAT: "p"}
    if kind in shapes and draw(st.booleans()):
        parts = []
        for what in shapes[kind]:
            source = {"p": PATHS, "h": NAMES, "q": st.just(0), "i": st.integers(0, 63), "a": st.just(u32(0))}[what]
            parts.append(field(what, draw(source)))
    return m.render(kind, draw(NUMBERS), *parts)


ANSWERS = st.one_of(
    st.tuples(st.just(m.NAME), PATHS.map(lambda path: named(0, path)[9:])),
    st.tuples(st.just(m.ATTRS), ATTRIBUTES),
    st.tuples(st.just(m.STATUS), st.integers(0, 9).map(lambda code: status(0, code)[9:])),
    st.tuples(st.just(m.HANDLE), NAMES.map(S)), st.tuples(st.just(m.DATA), st.binary(max_size=9).map(S)),
    st.tuples(st.sampled_from([0, 101, 105, 201, 255]), st.binary(max_size=20)),
)
HARMLESS = {m.INIT, m.REALPATH, m.LSTAT, m.EXTENDED, m.CLOSE}


@given(st.lists(st.one_of(
    st.tuples(st.just("client"), request()), st.tuples(st.just("raw"), st.binary(max_size=30)),
    st.tuples(st.just("server"), ANSWERS), st.tuples(st.just("good"), st.just(b"")),
    st.tuples(st.just("verdict"), st.booleans()),
), max_size=40), st.sampled_from(["deny", "hold", "permit"]))
def test_whatever_is_said(steps: list[tuple[str, object]], decision: str) -> None:
    desk = FileDesk(lambda action, path: decision)
    talk = Talk(desk, secret("/secret/*"))
    asked: list[bytes] = []
    try:
        for who, data in steps:
            asked += talk.server
            talk.server.clear()
            if who in ("client", "raw"):
                talk.ask(data)  # type: ignore[arg-type]
            elif who == "verdict" and desk.held:
                desk.answer(bool(data))
            elif who in ("server", "good") and asked:
                packet = asked.pop(0)
                number = packet[5:9]
                if who == "good" and packet[4] in (m.REALPATH, m.LSTAT, m.OPEN):
                    kind, body = {
                        m.REALPATH: (m.NAME, named(0, packet[13:] or b"/")[9:]), m.OPEN: (m.HANDLE, S(b"h")),
                        m.LSTAT: (m.ATTRS, u32(4, 0o100644)),
                    }[packet[4]]
                else:
                    kind, body = data if who == "server" else (m.STATUS, status(0)[9:])  # type: ignore[misc]
                talk.hear(u32(5 + len(body)) + bytes([kind]) + number + body)
            if not any(booked.decision == "permit" for booked in desk.asked()):
                assert set(kinds(talk.server)) <= HARMLESS
    except ProtocolError:
        pass
    talk.gate.closed()
    assert desk.settled()
