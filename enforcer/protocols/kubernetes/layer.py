"""Kubernetes: what the edge runs."""
from __future__ import annotations

from enforcer.core.book import Book
from enforcer.core.context import Context
from enforcer.http.layer import HttpLayer, connecting
from enforcer.http.messages import Answer, Head
from enforcer.protocols.kubernetes.errors import render_status, warning
from enforcer.protocols.kubernetes.exchange import KubernetesExchange
from enforcer.protocols.kubernetes.manner import KubernetesManner
from enforcer.words.operations import Request


class KubernetesLayer(HttpLayer):
    def __init__(self, context: Context) -> None:
        super().__init__(context, "kubernetes", KubernetesService, KubernetesManner())


class KubernetesService:
    def __init__(self, context: Context, book: Book) -> None:
        self._context, self._book = context, book

    def connect(self) -> tuple[Request, ...]:
        return connecting(self._context.target.name)

    def begin(self, head: Head) -> KubernetesExchange:
        return KubernetesExchange(self._context, self._book, head)

    def explain(self, status: int, reason: str) -> tuple[Answer, bytes]:
        """With a warning: kubectl begins with discovery, and prints its warnings, but nothing of its errors' bodies."""
        answer, body = render_status(status, f"weir: {reason}")
        return Answer(answer.status, answer.reason, (*answer.headers, warning(f"weir: {reason}"))), body
