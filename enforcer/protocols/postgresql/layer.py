"""PostgreSQL, frontend/backend protocol 3.0: the layer that the edge runs.  Startup first, then the conversation."""
from __future__ import annotations

from enforcer.core.context import Context
from enforcer.core.sessions import refused
from enforcer.protocols.postgresql import errors
from enforcer.protocols.postgresql.book import Book
from enforcer.protocols.postgresql.conversation import Conversation
from enforcer.protocols.postgresql.errors import Denial, Fatal
from enforcer.protocols.postgresql.messages import TERMINATE
from enforcer.protocols.postgresql.startup import Refusal, Startup
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, CloseConnection, Command, Record, SendData
from enforcer.words.errors import AuthenticationError, ProtocolError


class PostgresqlLayer:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._book = Book(context)
        self._startup = Startup(context, self._book)
        self._conversation: Conversation | None = None
        self._over = False
        self._ending: inputs.Ended | None = None       # once what runs has finished
        self._server_gone = False

    def start(self) -> list[Command]:
        return []

    @property
    def state(self) -> str:
        return self._conversation.state if self._conversation is not None else "login"

    @property
    def operations(self) -> int:
        return self._book.operations

    def receive(self, peer: int, data: bytes) -> list[Command]:
        if self._over:
            return []
        try:
            if self._conversation is not None:
                commands = self._conversation.receive(peer, data)
                return commands if self._ending is None else self._end_soon(commands)
            if peer == CLIENT:
                return self._startup.from_client(data)
            return self._started(self._startup.from_server(data))
        except (Fatal, Refusal, AuthenticationError) as error:
            return self.refuse(error)

    def handle(self, event: inputs.Input) -> list[Command]:
        if self._over:
            return []
        if isinstance(event, inputs.ConnectionLost):
            return self._lost(event)
        if isinstance(event, inputs.Ended):
            return self._end(event)
        if isinstance(event, inputs.RecordingFailed):
            words = Denial(errors.IO_ERROR, f"nothing can be recorded, so nothing is forwarded: {event.reason}")
            return self._close(words, "recording failed")
        try:
            if self._conversation is not None:
                commands = self._conversation.handle(event)
                return commands if self._ending is None else self._end_soon(commands)
            return self._started(self._startup.handle(event))
        except (Fatal, Refusal, AuthenticationError) as error:
            return self.refuse(error)

    def _end(self, event: inputs.Ended) -> list[Command]:
        if event.finish and self._conversation is not None and self._conversation.runs:
            self._ending = event
            return self._end_soon(self._conversation.stop(event.reason))
        return self._close(Denial(errors.ADMIN_SHUTDOWN, f"terminating connection: {event.reason}"), event.reason)

    def _end_soon(self, commands: list[Command]) -> list[Command]:
        assert self._ending is not None
        if self._over or (self._conversation is not None and self._conversation.runs):
            return commands
        return [*commands, *self._end(self._ending)]

    def _started(self, commands: list[Command]) -> list[Command]:
        """The conversation begins with what the client has sent already."""
        startup = self._startup
        if startup.done and startup.meaning is not None:
            self._conversation = Conversation(self._context, self._book, startup.meaning)
            if startup.early:
                commands += self._conversation.receive(CLIENT, startup.early)
        return commands

    def _lost(self, event: inputs.ConnectionLost) -> list[Command]:
        if event.peer == CLIENT:
            return self._close(None, f"client lost: {event.reason}" if event.reason else "client closed")
        self._server_gone = True
        if self._conversation is not None and self._conversation.terminated:
            return self._close(None, "client closed")
        return self._close(Denial(errors.CONNECTION_FAILURE, "the server closed the connection"),
                           f"server lost: {event.reason}" if event.reason else "server closed")

    def refuse(self, error: Exception) -> list[Command]:
        if isinstance(error, Fatal | Refusal):
            rules = error.rules if isinstance(error, Refusal) else ()
            return self._close(error.denial, error.denial.message, rules)
        if isinstance(error, AuthenticationError):
            return self._close(Denial(errors.INVALID_AUTHORIZATION, f"login at the target failed: {error}"), str(error))
        if isinstance(error, ProtocolError):
            return self._close(Denial(errors.PROTOCOL_VIOLATION, str(error)), f"protocol error: {error}")
        return self._close(Denial(errors.INTERNAL_ERROR, "internal error of Weir: nothing more is forwarded"), "bug")

    def _close(self, last_words: Denial | None, reason: str, rules: tuple[str, ...] = ()) -> list[Command]:
        """Last words, the end on record, both sides closed."""
        if self._over:
            return []
        self._over = True
        conversation, commands = self._conversation, []
        if conversation is not None:
            commands = conversation.abandon(reason)
            self._book.closed(reason, conversation.bytes_in, conversation.bytes_out)
        elif self._startup.phase not in ("first", "tls", "cancel") or last_words is not None:
            self._book.gap(reason)
            self._book.records.append(Record(refused(self._context, reason, rules)))
            if self._startup.opened:
                self._book.closed(reason, 0, 0)
        commands = [*self._book.take(), *commands]
        if last_words is not None and self._startup.phase not in ("tls", "cancel"):
            commands.append(SendData(CLIENT, last_words.render("FATAL")))
        if conversation is not None and not self._server_gone:
            commands.append(SendData(SERVER, TERMINATE))
        return [*commands, CloseConnection(SERVER, reason), CloseConnection(CLIENT, reason)]
