"""Another authority: trusted before it signs, and it signs when nothing runs that does not know it."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from cryptography import x509

from agent.credential import trust as module
from agent.credential.client_authority import (
    AuthorityError,
    client_authority,
    finish_rotation,
    next_client_authority,
    prepare_rotation,
)
from agent.credential.trust import Trust, TrustTarget, authority_directory, begin_rotation, load_pair, prepare_trust

SHOP = TrustTarget("shop", hosts=("db.shop.example",), addresses=("192.0.2.8",))
LATER = 1 << 62


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
    return tmp_path / "state", tmp_path / "run"


def signer(trust: Trust) -> bytes:
    return x509.load_pem_x509_certificates(trust.leafs["shop"].certificate.encode())[1].public_bytes(
        module.serialization.Encoding.DER)


def trusted(places: tuple[Path, Path]) -> set[bytes]:
    return {one.public_bytes(module.serialization.Encoding.DER) for one in x509.load_pem_x509_certificates(
        (places[1] / "trust" / "weir.pem").read_bytes())}


def begun(places: tuple[Path, Path]) -> bytes:
    made = begin_rotation(authority_directory(places[0], "shop"), SHOP)
    return made.certificate.public_bytes(module.serialization.Encoding.DER)


def test_it_signs_when_what_ran_has_ended(places: tuple[Path, Path]) -> None:
    since = time.time_ns()
    first = prepare_trust([SHOP], *places)
    old = signer(first)
    new = begun(places)
    assert begun(places) == new, "asked again, it is the same"
    waiting = prepare_trust([SHOP], *places, running=True, oldest=since)
    assert (signer(waiting), trusted(places)) == (old, {old, new})
    assert [one.target for one in waiting.waiting] == ["shop"]
    assert since < waiting.waiting[0].made < time.time_ns() + 2 * 10**9
    assert signer(prepare_trust([SHOP], *places, running=True, oldest=since)) == old, "as long as that runs"
    signing = prepare_trust([SHOP], *places, running=True, oldest=LATER)
    assert (signer(signing), signing.waiting) == (new, ()), "what runs was started later and trusts both"
    assert trusted(places) == {old, new}, "the file is bound where something runs: it is only added to"
    prepare_trust([SHOP], *places)
    assert trusted(places) == {new}, "and when nothing does the old one is gone"
    assert not list((places[0] / "ca" / "shop").glob("old-*")), "not even kept as a former one"


def test_at_once_where_nothing_runs_or_somebody_is_in_a_hurry(places: tuple[Path, Path]) -> None:
    prepare_trust([SHOP], *places)
    new = begun(places)
    assert signer(prepare_trust([SHOP], *places)) == new
    newer = begun(places)
    hurried = prepare_trust([SHOP], *places, running=True, oldest=1, now={"shop"})
    assert signer(hurried) == newer


def test_until_both_are_in_force_both_are_trusted(places: tuple[Path, Path]) -> None:
    first = prepare_trust([SHOP], *places)
    new = begun(places)
    second = prepare_trust([SHOP], *places, also=first)
    assert (signer(second), trusted(places)) == (new, {signer(first), new})
    module.publish_trust(places[1], second)
    assert trusted(places) == {new}


def test_one_that_ends_soon_gets_a_successor_by_itself(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AUTHORITY_LIFE", module._LAST + module.timedelta(days=1))
    old = signer(prepare_trust([SHOP], *places))
    monkeypatch.undo()
    found = prepare_trust([SHOP], *places, running=True, oldest=1)
    assert (signer(found), len(found.waiting), len(trusted(places))) == (old, 1, 2)
    leaf, issuer = x509.load_pem_x509_certificates(found.leafs["shop"].certificate.encode())
    assert leaf.not_valid_after_utc <= issuer.not_valid_after_utc, "no leaf outlives it"
    assert signer(prepare_trust([SHOP], *places, running=True, oldest=LATER)) != old


def killed_after_a_rename(directory: Path, stem: str) -> None:
    rename, child = Path.rename, os.fork()
    if child == 0:
        Path.rename = lambda self, to: (rename(self, to), os.kill(os.getpid(), signal.SIGKILL))  # type: ignore
        module.promote(directory, stem)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_between_key_and_certificate(places: tuple[Path, Path]) -> None:
    """Of both kinds: what is there is finished, and no authority is made that nobody knows."""
    prepare_trust([SHOP], *places)
    directory = authority_directory(places[0], "shop")
    client_authority(places[0], "shop")
    server, client = begun(places), prepare_rotation(places[0], "shop").certificate
    for stem in ("ca", "client-ca"):
        killed_after_a_rename(directory, stem)
        assert load_pair(directory, stem) is None, "they do not belong together"
    assert signer(prepare_trust([SHOP], *places, running=True, oldest=1)) == server
    assert client_authority(places[0], "shop").certificate == client


def test_the_server_is_given_the_successor_first(tmp_path: Path) -> None:
    old = client_authority(tmp_path, "shop").certificate
    with pytest.raises(AuthorityError, match=r"weir ca rotate shop --clients --prepare first"):
        finish_rotation(tmp_path, "shop")
    new = prepare_rotation(tmp_path, "shop").certificate
    assert prepare_rotation(tmp_path, "shop").certificate == new == next_client_authority(tmp_path, "shop")
    assert client_authority(tmp_path, "shop").certificate == old, "it signs nothing yet"
    assert finish_rotation(tmp_path, "shop").certificate == new == client_authority(tmp_path, "shop").certificate
    assert next_client_authority(tmp_path, "shop") is None
    with pytest.raises(AuthorityError, match="no new authority is prepared"):
        finish_rotation(tmp_path, "shop")
