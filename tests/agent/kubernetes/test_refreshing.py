"""The refresh token's file and the process that uses it: what is asked, what is kept, and what is said."""
from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hostile import Hostile, hostile

from agent.contract.credential import Credential
from agent.contract.refresh import Asked, Given
from agent.credential.credentials import Credentials
from agent.credential.helper import Helper
from agent.credential.secrets import SecretError
from agent.kubernetes.refreshing import refreshed
from agent.layout import cgroup_root
from agent.settings.credential_table import CredentialRow
from enforcer.identity.metadata import WELL_KNOWN

__all__ = ["hostile"]


def token(seconds: float) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time() + seconds), "sub": "weir"}).encode()).decode()
    return f"e30.{body.rstrip('=')}.x"


class Process:
    """In place of a Helper: what it is given, and what it says."""

    def __init__(self, *answers: Given | bytes | SecretError) -> None:
        self.answers, self.asked = list(answers), list[Asked]()

    async def run(self, command: list[str], user: str, seconds: float, given: bytes, role: str) -> bytes:
        assert user == "weir-vault"
        assert command[-1] == "enforcer.credentials.refresh"
        assert b"hunter" not in " ".join(command).encode()
        self.asked.append(msgspec.json.decode(given, type=Asked))
        answer = self.answers.pop(0)
        if isinstance(answer, SecretError):
            raise answer
        return answer if isinstance(answer, bytes) else msgspec.json.encode(answer)


@pytest.fixture
def row(tmp_path: Path) -> CredentialRow:
    for name, content in (("refresh", "r-hunter1\n"), ("secret", "s-hunter"), ("ca", "PEM")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(content)
    return CredentialRow(issuer="https://i", client_id="k", refresh_token_file=f"{tmp_path}/refresh",
                         client_secret_file=f"{tmp_path}/secret", issuer_ca=f"{tmp_path}/ca")


async def refresh(process: Process, row: CredentialRow) -> Credential:
    helper: Any = process
    return (await refreshed(helper, "weir-vault", row)).credential


async def test_what_is_asked_and_what_comes_of_it(row: CredentialRow) -> None:
    process = Process(Given("", token(600)))
    found = await refresh(process, row)
    assert process.asked == [Asked("https://i", "PEM", "k", "s-hunter", "r-hunter1")]
    assert (found.user, found.token.count("."), 590 < found.expires - time.time() <= 600) == ("weir", 2, True)
    assert Path(row.refresh_token_file or "").read_text() == "r-hunter1\n"


async def test_another_refresh_token_is_kept_for_the_next_time(row: CredentialRow) -> None:
    process = Process(Given("", token(600), "r-hunter2"), Given("", token(600)))
    await refresh(process, row)
    file = Path(row.refresh_token_file or "")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("r-hunter2\n", 0o600)
    await refresh(process, row)
    assert process.asked[1].refresh_token == "r-hunter2"


@pytest.mark.parametrize(("answer", "wanted"), [
    (Given("the provider gives no token (invalid_grant)"), "no ID token: the provider gives no token"),
    (Given("\x1b[2Jx"), r"no ID token: \?\[2Jx"), (b"hunter", "could not do it"),
    (b'{"more": "hunter"}', "could not do"),
    (Given("", token(-5)), "its token has expired"), (Given("", "hunter 2"), "its token is none"), (Given(), "neither"),
    (SecretError("took longer than 30 s and was killed"), "asks for one took longer than 30 s"),
])
async def test_what_is_none(row: CredentialRow, answer: Any, wanted: str) -> None:
    with pytest.raises(SecretError, match=wanted) as caught:
        await refresh(Process(answer), row)
    assert "hunter" not in str(caught.value)


async def test_files_that_are_not_there(row: CredentialRow) -> None:
    Path(row.issuer_ca or "").unlink()
    with pytest.raises(SecretError, match=r"issuer_ca .*: No such file"):
        await refresh(Process(), row)
    Path(row.refresh_token_file or "").chmod(0o644)
    with pytest.raises(SecretError, match=r"refresh_token_file .*others than root can read it"):
        await refresh(Process(), row)


async def test_one_token_for_all_until_it_ends(row: CredentialRow, tmp_path: Path) -> None:
    credentials, process = Credentials(tmp_path), Process(Given("", token(600)), Given("", token(600)))
    target: Any = SimpleNamespace(name="cluster", credentials=(row,), protocol="kubernetes")
    config: Any = SimpleNamespace(targets=(target,), runtime=SimpleNamespace(vault_user="weir-vault"))
    credentials._helper = process     # type: ignore[assignment]
    first = await credentials.find(config, target, "", "", ())
    assert await credentials.find(config, target, "", "", ()) == first
    assert len(process.asked) == 1
    process.answers[:] = [Given("away")]
    credentials._kept.forget(lambda key: False)
    with pytest.raises(SecretError, match=r"credential\[1\] of target cluster: no ID token: away"):
        await credentials.find(config, target, "", "", ())


@pytest.mark.kernel
async def test_the_process_itself(row: CredentialRow, hostile: Hostile, tmp_path: Path) -> None:
    """As nobody, who holds nothing, in a cgroup that is gone after it."""
    cgroup = cgroup_root() / f"weir-test-{os.getpid()}"
    (tmp_path / "ca").write_text(hostile.ca)
    hostile.say(WELL_KNOWN, hostile.metadata())
    hostile.say("/token", {"id_token": token(600), "refresh_token": "r-hunter2"})
    try:
        made = await refreshed(Helper(cgroup), "nobody", msgspec.structs.replace(row, issuer=hostile.issuer))
    finally:
        left = [one for one in cgroup.glob("*/")]
        cgroup.rmdir()
    assert left == []
    assert made.credential.user == "weir"
    assert (tmp_path / "refresh").read_text() == "r-hunter2\n"
