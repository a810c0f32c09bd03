"""Sessions of the identity process at a provider of the tests' (tests/hostile.py): what they tell, and a code flow."""
from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import signing
from hostile import Hostile

from agent.contract import identity as told
from enforcer.identity.sessions import Sessions


class Told:
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.came = asyncio.Event()

    def __call__(self, message: Any) -> None:
        self.messages.append(message)
        self.came.set()

    async def ended(self) -> told.Ended:
        async with asyncio.timeout(20):
            while True:
                if found := [one for one in self.messages if isinstance(one, told.Ended)]:
                    return found[0]
                self.came.clear()
                await self.came.wait()

    async def verified(self, count: int) -> list[told.Verified]:
        async with asyncio.timeout(20):
            while len(found := [one for one in self.messages if isinstance(one, told.Verified)]) < count:
                self.came.clear()
                await self.came.wait()
        return found


def id_token(hostile: Hostile, **changed: Any) -> str:
    now = int(time.time())
    whole = {"iss": hostile.issuer, "aud": "weir", "exp": now + 300, "iat": now, "nonce": None} | changed
    return signing.sign(signing.claims(**whole))


def answer(hostile: Hostile, **changed: Any) -> dict[str, Any]:
    return {"access_token": "SECRET-access", "refresh_token": "SECRET-refresh", "token_type": "Bearer",
            "id_token": id_token(hostile, **changed)}


async def begin(sessions: Sessions, hostile: Hostile, **changed: Any) -> dict[str, str]:
    """A code flow, up to the browser; the parameters of its address."""
    assert sessions.configure((hostile.provider(**changed),)) == ""
    begun = await sessions.begin(told.Begin(1, "s1", "corp", "code", 4444))
    assert begun.error == ""
    return {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}


async def finish(sessions: Sessions, query: str, session: str = "s1") -> str:
    return (await sessions.finish(told.Finish(2, session, query))).error
