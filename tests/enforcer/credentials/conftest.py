"""A real OpenBao on loopback."""
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from lab import certificates
from lab.openbao import OpenBao, openbao
from vaulted import Asking


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao(tmp_path_factory.mktemp("bao"), certificates.make_authority()) as made:
        made.put("crews/orders", username="crew_svc", password="kv-hunter1")
        yield made


@pytest.fixture
async def asking(bao: OpenBao) -> AsyncIterator[Asking]:
    made = Asking(bao)
    yield made
    await made.vaults.close()
