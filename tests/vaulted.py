"""The credentials process' own code against an OpenBao, asked as the agent asks it."""
from __future__ import annotations

from lab.openbao import OpenBao

from agent.contract.vault import Fetch, Fetched, Material, Server, Source, Stored
from enforcer.credentials.vaults import Vaults

STORED = Stored("secret", "crews/orders", "", "username", "password", "", "")


def server(bao: OpenBao, **changed: str) -> Server:
    found = {"name": "safe", "address": bao.base, "ca": bao.authority.pem, "namespace": "", "auth": "approle",
             "mount": "approle", "role": "", "role_id": bao.role_ids["weir"]} | changed
    return Server(**found)  # type: ignore[arg-type]


class Asking:
    def __init__(self, bao: OpenBao) -> None:
        self.bao, self.vaults = bao, Vaults()
        self.material = Material(bao.secret_id().encode())
        self.configure()

    def configure(self, **changed: str) -> None:
        assert self.vaults.configure([server(self.bao, **changed)]) == ""

    async def fetch(self, source: Source = STORED, material: Material | None = None) -> Fetched:
        return await self.vaults.fetch(Fetch(1, "safe", material or self.material, source))
