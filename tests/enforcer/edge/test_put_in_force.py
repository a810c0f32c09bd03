"""A configuration takes another's place in one pass: nothing is judged by a mixture of both."""
from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel, Egress
from enforcer.edge.edge import Configuration
from enforcer.words import commands as words
from enforcer.words import inputs
from enforcer.words.decisions import DENY

LABEL = ColumnLabel("pii.email", "public", "customers", "email")


async def connected(house, target, stamp: int):
    house.layer(house.relay)
    port = await house.open(target)
    house.asked.owner = msgspec.structs.replace(house.owner(target.port, target.name), stamp=stamp)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not house.edge.live:
        await asyncio.sleep(0.01)
    return reader, writer


def ends(house, monkeypatch) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    [one] = house.edge.live.values()
    monkeypatch.setattr(type(one), "end", lambda self, reason, finish=False: found.append((reason, finish)))
    return found


def changed(house, target, **more) -> Configuration:
    return replace(house.edge.configuration, targets={target.name: target} if target else {}, **more)


@pytest.mark.parametrize(("change", "said"), [
    ({"labels": (LABEL,)}, "target orders is configured otherwise"),
    ({"payload": "rows"}, "target orders is configured otherwise"),
    ({"databases": ("shop",)}, "target orders is configured otherwise"),
    ({"addresses": ("127.0.0.9",)}, ""), ({"hosts": ("other.example",)}, ""), ({"leaf_key": "other"}, ""), ({}, ""),
], ids=str)
async def test_a_target_that_is_judged_otherwise(house, monkeypatch, change, said: str) -> None:
    """What is judged by it ends after what runs; how it is reached may change under it."""
    target = house.target(await house.serve(lambda reader, writer: None))
    _, writer = await connected(house, target, 0)
    found = ends(house, monkeypatch)
    house.edge.put_in_force(changed(house, msgspec.structs.replace(target, **change)))
    assert found == ([(f"{said}: connect again", True)] if said else [])
    house.edge.put_in_force(changed(house, None))
    assert found[-1] == ("target orders is not configured any more: connect again", True)
    monkeypatch.undo()
    writer.close()
    await house.close()


@pytest.mark.parametrize(("change", "taken"), [
    ({"hosts": ("other.example",)}, False), ({"port": 1}, False), ({"tls_ca": "others"}, False),
    ({"tls": "verify-ca"}, False), ({"addresses": ("127.0.0.9",)}, True), ({"leaf_key": "other"}, True), ({}, True),
], ids=str)
async def test_a_credential_of_now_is_not_for_whom_the_target_was_before(house, change, taken: bool) -> None:
    """A session that goes on may log in again, on the connection that it has or on another to where it began."""

    async def server(reader, writer) -> None:
        await reader.read()
        writer.close()

    target = house.target(await house.serve(server))
    house.asked.login = Credential("scram", token="new", lease=7)

    class Again(house.relay):
        def receive(self, peer: int, data: bytes) -> list:
            return [words.Login("shop", "app")]

        def handle(self, event) -> list:
            said = {inputs.CredentialReady: lambda: "ready", inputs.CredentialFailed: lambda: event.reason}
            found = said.get(type(event))
            return [words.SendData(words.CLIENT, found().encode() + b"\n")] if found else super().handle(event)

    house.relay = Again
    reader, writer = await connected(house, target, 0)
    house.edge.put_in_force(changed(house, msgspec.structs.replace(target, **change)))
    writer.write(b"x")
    said = await reader.readline()
    assert said == (b"ready\n" if taken else b"target orders is reached otherwise now: connect again\n")
    assert [one.lease for one in house.asked.unused_calls] == ([] if taken else [7])
    writer.close()
    await house.close()
    await asyncio.sleep(0)


async def test_who_is_in_other_groups_now(house, monkeypatch) -> None:
    target = house.target(await house.serve(lambda reader, writer: None))
    _, writer = await connected(house, target, 7)
    found = ends(house, monkeypatch)
    house.edge.put_in_force(changed(house, target, standing=frozenset({7}), horizon=8))
    assert found == [], "he is who he was"
    house.edge.put_in_force(changed(house, target, standing=frozenset({7}), horizon=9))
    assert found == [], "and is so again"
    house.edge.put_in_force(changed(house, target, standing=frozenset({8}), horizon=9))
    [(reason, finish)] = found
    assert finish
    assert "in which groups: connect again" in reason
    late = msgspec.structs.replace(house.asked.owner, stamp=7)
    gate = house.edge.context(late, target).gate
    decision = gate.decide(None, ())
    assert (decision.outcome, decision.rules) == (DENY, ("reconfigured",)), "an answer that came too late, too"
    for stamp in (0, 8, 9, 12):
        assert house.edge.barred(msgspec.structs.replace(house.asked.owner, stamp=stamp)) == ("", "")
    monkeypatch.undo()
    writer.close()
    await house.close()


async def test_flows_as_well(house, monkeypatch) -> None:
    upstream = await house.serve(lambda reader, writer: None)
    port = await house.open(None, Egress("model", ("127.0.0.1",), (upstream,)))
    house.asked.owner = msgspec.structs.replace(house.owner(upstream, egress="model"), stamp=3)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    while not house.edge.live:
        await asyncio.sleep(0.01)
    found = ends(house, monkeypatch)
    house.edge.put_in_force(replace(house.edge.configuration, horizon=4))
    assert len(found) == 1
    monkeypatch.undo()
    writer.close()
    await house.close()
