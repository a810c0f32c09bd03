"""Where the enforcer dials."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from enforcer.edge import upstream


@pytest.mark.parametrize(("dialled", "wanted"), [
    ("192.0.2.1", ("192.0.2.1", "2001:db8::1")), ("2001:db8::1", ("2001:db8::1", "192.0.2.1", "192.0.2.2")),
    ("192.0.2.9", ("192.0.2.9", "2001:db8::1")),       # given a moment ago, and not configured yet
    ("", ("192.0.2.1", "192.0.2.2", "2001:db8::1")), ("/run/x", ("192.0.2.1", "192.0.2.2", "2001:db8::1")),
])
def test_the_address_that_the_client_chose(dialled: str, wanted: tuple[str, ...]) -> None:
    target: Any = SimpleNamespace(addresses=("192.0.2.1", "192.0.2.2", "2001:db8::1"), socket="")
    owner: Any = SimpleNamespace(destination=dialled)
    assert upstream.addresses(target, owner) == wanted
