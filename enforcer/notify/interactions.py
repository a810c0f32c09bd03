"""Pure: what Slack says when somebody presses a button (https://docs.slack.dev/reference/interaction-payloads), in a
form body or in an envelope of socket mode (https://docs.slack.dev/apis/events-api/using-socket-mode)."""
from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import parse_qs

import msgspec

from agent.contract.notify import Ticket
from enforcer.notify.blocks import APPROVE, DENY, MODAL, REASON_BLOCK, REASON_INPUT, Pressed, parse_pressed

ENVELOPE: Final = 256 << 10           # bytes
_Id = Annotated[str, msgspec.Meta(max_length=128)]
_Long = Annotated[str, msgspec.Meta(max_length=4096)]


class Malformed(ValueError):
    """Nothing of what was sent is in its text."""


class Press(msgspec.Struct, frozen=True):
    """A button of a message."""

    user: str
    ticket: str
    approve: bool
    channel: str
    message: str                      # its timestamp
    trigger: str                      # opens a modal within three seconds


class Submission(msgspec.Struct, frozen=True):
    """A modal."""

    user: str
    pressed: Pressed
    reason: str


class Envelope(msgspec.Struct, frozen=True):
    """Of socket mode; `kind` "hello", "disconnect", "interactive", or something that Weir asks for nothing of."""

    kind: _Id = msgspec.field(name="type", default="")
    envelope_id: _Id = ""
    payload: msgspec.Raw = msgspec.Raw(b"null")
    reason: _Id = ""                  # of a disconnect


class _Thing(msgspec.Struct, frozen=True):
    id: _Id = ""


class _User(msgspec.Struct, frozen=True):
    id: _Id
    team_id: _Id = ""


class _Container(msgspec.Struct, frozen=True):
    message_ts: _Id = ""
    channel_id: _Id = ""


class _Action(msgspec.Struct, frozen=True):
    action_id: _Id = ""
    value: _Long = ""


class _Value(msgspec.Struct, frozen=True):
    value: _Long | None = None


class _State(msgspec.Struct, frozen=True):
    values: dict[str, dict[str, _Value]] = {}


class _View(msgspec.Struct, frozen=True):
    callback_id: _Id = ""
    private_metadata: _Long = ""
    state: _State = _State()


class _Payload(msgspec.Struct, frozen=True):
    user: _User
    type: _Id = ""
    team: _Thing | None = None
    trigger_id: _Long = ""
    container: _Container = _Container()
    actions: list[_Action] = []
    view: _View | None = None


_payload = msgspec.json.Decoder(_Payload)
_envelope = msgspec.json.Decoder(Envelope)


def payload_of(body: bytes) -> bytes:
    """Of a form with the one field `payload`.  Raises Malformed."""
    try:
        found = parse_qs(body.decode(), strict_parsing=True, max_num_fields=4, errors="strict")
        (payload,) = found["payload"]
    except (ValueError, KeyError):
        raise Malformed("it is no form with one payload") from None
    return payload.encode()


def parse_envelope(text: bytes | str) -> Envelope:
    """Raises Malformed."""
    return _decode(_envelope, text, "it is no envelope")  # type: ignore[no-any-return]


def parse_interaction(payload: bytes | msgspec.Raw, team: str) -> Press | Submission | None:
    """None: nothing that is Weir's to answer.  Raises Malformed; also where it is another team's."""
    found: _Payload = _decode(_payload, payload, "it is no interaction")
    # In a channel that teams share, `team` is Weir's and the user's may be another.
    if found.team is None or found.team.id != team or found.user.team_id != team:
        raise Malformed("it is of another team")
    if found.type == "block_actions":
        return _press(found)
    if found.type == "view_submission" and found.view is not None and found.view.callback_id == MODAL:
        return _submission(found.user.id, found.view)
    return None


def _press(found: _Payload) -> Press | None:
    action = next((one for one in found.actions if one.action_id in (APPROVE, DENY)), None)
    if action is None:
        return None
    return Press(found.user.id, _ticket(action.value), action.action_id == APPROVE, found.container.channel_id,
                 found.container.message_ts, found.trigger_id)


def _submission(user: str, view: _View) -> Submission:
    try:
        pressed = parse_pressed(view.private_metadata)
    except (msgspec.MsgspecError, RecursionError):
        raise Malformed("its modal is not Weir's") from None
    value = view.state.values.get(REASON_BLOCK, {}).get(REASON_INPUT, _Value()).value or ""
    return Submission(user, msgspec.structs.replace(pressed, ticket=_ticket(pressed.ticket)), value.strip())


def _ticket(text: str) -> str:
    try:
        return msgspec.convert(text, Ticket)
    except msgspec.ValidationError:
        raise Malformed("it names no ticket") from None


def _decode(decoder: msgspec.json.Decoder[Any], text: Any, wrong: str) -> Any:
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):
        raise Malformed(wrong) from None
