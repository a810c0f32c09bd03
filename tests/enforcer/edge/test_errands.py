"""Credentials that expire while a session is open."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent.contract.credential import Credential
from enforcer.edge import errands
from enforcer.edge.tally import TargetTally
from enforcer.words import commands as words
from enforcer.words.inputs import CatalogueReady

OLD, NEW, ENDLESS = Credential("v-1", "hunter1", expires=1000), Credential("v-2", "hunter2", expires=9000), Credential(
    "svc", "hunter3")


class Catalogues:
    def __init__(self) -> None:
        self.given: list[Credential] = []

    async def load(
        self, context: object, database: str, credential: Credential, stale: int, road: object,
    ) -> tuple[object, str]:
        self.given.append(credential)
        return 1, ""


def session(credential: Credential, answer: Credential | str) -> Any:
    asked: list[tuple[object, ...]] = []
    told: list[object] = []

    async def ask(*about: object) -> Credential | str:
        asked.append(about)
        return answer

    principal = SimpleNamespace(groups=("data",), subject="local:ada", workload="crew")
    context = SimpleNamespace(target=SimpleNamespace(name="orders"), principal=principal, session="01J")
    edge = SimpleNamespace(
        catalogues=Catalogues(), asking=SimpleNamespace(credential=ask), why_elsewhere=lambda target: "")
    used: list[Credential] = []
    return SimpleNamespace(context=context, edge=edge, credential=credential, asked_by=words.Login("shop", "app"),
                           tell=told.append, asked=asked, told=told, use=used.append, used=used, road=None,
                           tally=TargetTally())


@pytest.mark.parametrize(("had", "at", "answer", "given"), [
    (OLD, 999, NEW, [OLD]), (OLD, 1000, NEW, [NEW]), (ENDLESS, 10**9, NEW, [ENDLESS]),
    (OLD, 1000, "the helper fails", []),
])
async def test_a_catalogue_is_read_with_a_credential_that_lasts(
    monkeypatch: pytest.MonkeyPatch, had: Credential, at: int, answer: Credential | str, given: list[Credential],
) -> None:
    monkeypatch.setattr(errands.clock, "now", lambda: at * 10**9)
    one = session(had, answer)
    await errands.load_catalogue(one, words.LoadCatalogue("shop", 0))
    assert one.edge.catalogues.given == given
    assert one.asked == ([] if had in given else [("orders", "shop", "app", ("data",), "local:ada:crew:01J")])
    assert one.used == [one for one in given if one is NEW]
    assert one.told == [CatalogueReady("shop", 1, "") if given else CatalogueReady("shop", None, "the helper fails")]


@pytest.mark.parametrize(("at", "shown"), [(999, OLD), (1000, None)])
async def test_a_cancel_shows_no_certificate_that_has_expired(
    monkeypatch: pytest.MonkeyPatch, at: int, shown: Credential | None,
) -> None:
    """The server would refuse the handshake, and with it the cancel."""
    used: list[Credential | None] = []
    wrote: list[bytes] = []

    def towards_server(target: object, credential: Credential | None) -> None:
        used.append(credential)

    async def start_tls(*_: object, **__: object) -> None:
        pass

    async def read(*_: object) -> bytes:
        return b"S"

    async def open_streams(_: str) -> tuple[Any, Any]:
        return SimpleNamespace(readexactly=read, read=read), SimpleNamespace(
            write=wrote.append, start_tls=start_tls, transport=SimpleNamespace(abort=lambda: None))

    monkeypatch.setattr(errands.clock, "now", lambda: at * 10**9)
    monkeypatch.setattr(errands.upstream, "open_streams", open_streams)
    protocol = SimpleNamespace(render_cancel=lambda process, secret: b"cancel", tls_request=b"tls")
    edge = SimpleNamespace(commit=SimpleNamespace(write_now=lambda: None),
                           contexts=SimpleNamespace(towards_server=towards_server))
    target = SimpleNamespace(tls="verify-full", hosts=("db",))
    key: Any = SimpleNamespace(address="a:1", target=target, credential=OLD, process=1, secret=b"s", session="s",
                               road=None)
    await errands._send_cancel(SimpleNamespace(protocol=protocol, edge=edge), key)  # type: ignore[arg-type]
    assert (used, wrote) == ([shown], [b"tls", b"cancel"])
