"""Credentials that expire while a session is open."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent.contract.credential import Credential
from enforcer.edge import errands
from enforcer.words import commands as words
from enforcer.words.inputs import CatalogueReady

OLD, NEW, ENDLESS = Credential("v-1", "hunter1", expires=1000), Credential("v-2", "hunter2", expires=9000), Credential(
    "svc", "hunter3")


class Catalogues:
    def __init__(self) -> None:
        self.given: list[Credential] = []

    async def load(self, context: object, database: str, credential: Credential, stale: int) -> tuple[object, str]:
        self.given.append(credential)
        return 1, ""


def session(credential: Credential, answer: Credential | str) -> Any:
    asked: list[tuple[object, ...]] = []
    told: list[object] = []

    async def ask(*about: object) -> Credential | str:
        asked.append(about)
        return answer

    context = SimpleNamespace(target=SimpleNamespace(name="orders"), principal=SimpleNamespace(groups=("data",)))
    edge = SimpleNamespace(catalogues=Catalogues(), asking=SimpleNamespace(credential=ask))
    return SimpleNamespace(context=context, edge=edge, credential=credential, login=words.Login("shop", "app"),
                           tell=told.append, asked=asked, told=told)


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
    assert one.asked == ([] if had in given else [("orders", "shop", "app", ("data",))])
    assert one.told == [CatalogueReady("shop", 1, "") if given else CatalogueReady("shop", None, "the helper fails")]
