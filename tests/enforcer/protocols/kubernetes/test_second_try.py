"""A person's no to a stream over WebSocket is the answer to the same client's second try over SPDY, once."""
from __future__ import annotations

import json

import pytest
from httptalk import CREDENTIAL, OWNER, TARGET, Talk, request
from kubeplay import EXEC, PODS
from msgspec.structs import replace
from pump import TableGate

from agent.contract.owner import Process
from enforcer.protocols.kubernetes.layer import KubernetesLayer
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, Hold

PATH = f"{PODS}/web/exec?command=ls&stdin=true&stdout=true"
PROCESS = Process(7, "/usr/bin/kubectl", started=77)


def spdy(path: str = PATH) -> bytes:
    return request("POST", path, b"", "Connection: Upgrade", "Upgrade: SPDY/3.1",
                   "X-Stream-Protocol-Version: v4.channel.k8s.io")


def refused(process: Process = PROCESS, state: str = "denied") -> Talk:
    """After somebody has said no."""
    made = Talk(TableGate(hold={("k8s:exec", "web")}), CREDENTIAL, KubernetesLayer, TARGET,
                replace(OWNER, process=process)).open()
    assert made.say(EXEC) == []
    made.tell(inputs.HoldOpened(1, "T-77", "exec needs a dba"))
    [(peer, said)] = made.tell(inputs.HoldAnswered(1, state, "ada", "not on a Friday", "T-77"))
    assert (peer, b" 403 " in said) == (CLIENT, True)
    return made


@pytest.mark.parametrize("state", ["denied", "expired"])
def test_nobody_is_asked_twice(state: str) -> None:
    made = refused(state=state)
    [(peer, said)] = made.say(spdy())
    status = json.loads(said.partition(b"\r\n\r\n")[2])
    assert (peer, status["code"], "T-77" in status["message"]) == (CLIENT, 403, True)
    assert len(made.of(Hold)) == 1
    assert [one.rules for one in made.intents] == [("ask",), ("denied-before",)]
    assert made.say(spdy()) == []              # and once
    assert len(made.of(Hold)) == 2


def test_something_else_is_asked_about() -> None:
    made = refused()
    assert made.say(spdy(PATH.replace("ls", "rm"))) == []
    assert len(made.of(Hold)) == 2


def test_so_is_what_comes_late() -> None:
    made = refused()
    made.ticks = 60 * 10**9
    assert made.say(spdy()) == []
    assert len(made.of(Hold)) == 2


def test_so_is_a_process_that_nobody_can_tell() -> None:
    made = refused(replace(PROCESS, started=0))
    assert made.say(spdy()) == []
    assert len(made.of(Hold)) == 2


def test_what_policy_permits_by_then_goes() -> None:
    made = refused()
    made.gate.hold.clear()
    assert made.say(spdy())[0][0] == SERVER
