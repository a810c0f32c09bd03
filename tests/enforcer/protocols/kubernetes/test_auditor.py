"""What docs/auditor.md answers about clusters, of a recording as the recorder writes it."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubeplay
import pytest
from conftests import conftest_of
from cookbook import answers
from httptalk import request
from pump import TableGate

from enforcer.words.commands import Record


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    scene = conftest_of("enforcer/recording").Scene(tmp_path_factory.mktemp("recording"))
    writer = scene.writer()
    for record in said():
        writer.append(record.event, record.blobs)
    writer.flush()
    scene.start()
    scene.turn(2)
    yield scene.recording
    scene.close()


def said() -> list[Record]:
    session = kubeplay.KubernetesSession(TableGate(deny={("k8s:list", "nodes")}), 1 << 20)
    session.hear("client", request("GET", "/api/v1/nodes"))
    session.hear("client", request("GET", "/api/v1/namespaces/shop//pods"))
    session.hear("client", kubeplay.CREATE)
    session.hear("server", b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
    for who, data in kubeplay.BOOK:
        session.hear(who, data)
    session.lose()
    return session.inner.records


def told(recording: Path, question: str) -> list[tuple[Any, ...]]:
    return answers(recording.glob("recording-*.sqlite"), question, "Questions about clusters")


def test_an_auditors_questions_are_answered(recording: Path) -> None:
    assert [row[3:] for row in told(recording, "What was changed")] == [
        ("create", "shop/pods", "error", "409"), ("create", "shop/pods", "ok", "200"),
        ("delete", "shop/pods/web", "ok", "200")]
    [entered] = told(recording, "Who got into")
    assert entered[5].endswith("-- ls")
    assert (entered[4], *entered[6:]) == ("exec", "ok", "exit 0")
    [secret] = told(recording, "Who read Secrets")
    assert secret[3] == "GET /api/v1/namespaces/shop/secrets/a"
    assert "secret" in json.loads(secret[4])
    denied = told(recording, "What was denied")
    assert [row[3] for row in denied] == ["GET /api/v1/nodes", "GET /api/v1/namespaces/shop//pods"]
    assert denied[1][4] == "the path holds an empty or a dot segment"
    assert [row[0] for row in told(recording, "By which name")] == [f"SESSION-{number}" for number in range(3, 8)]
