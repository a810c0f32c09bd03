"""What agent and launcher say to each other over the launcher's channel.  One frame each (agent/frames.py)."""
from __future__ import annotations

from typing import Final

import msgspec

from agent.contract import frames
from agent.workload.view import View

LIMIT: Final = 5 << 20                # bytes of a frame: a caller's Run and its view
DESCRIPTORS: Final = 5                # with a Launch: the caller and its descriptors 0, 1, 2; network namespace
PRIVATE, HOST = "private", "host"     # which network: a namespace of the start's own, or the host's


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


class Launch(Message, frozen=True):
    """Start this.  Everything is decided; the launcher checks it again and knows no policy."""

    number: int                       # joins the answers
    workload: str
    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    cwd: bytes
    uid: int                          # never 0, nor any of the gids
    gid: int
    groups: tuple[int, ...]
    tty: bool
    rows: int
    columns: int
    owner: int                        # written to the owner map before anything of the workload runs
    cgroup: str                       # absolute path; made by the launcher, removed when empty
    view: View
    root: bool = False                # the uid is shown as 0 inside, the gid too
    notes: tuple[str, ...] = ()       # for the caller, when it runs
    network: str = HOST               # for the agent, which makes it


class Ready(Message, frozen=True):
    """The launcher's first word: everything that it needs is there."""


class Launched(Message, frozen=True):
    number: int
    pid: int                          # bubblewrap's outer process: its end is the command's


class Ended(Message, frozen=True):
    """Without a Launched before it: the command did not run."""

    number: int
    code: int                         # as a shell's; 125 is Weir's own error
    text: str = ""


FromLauncher = Ready | Launched | Ended

_encoder = msgspec.msgpack.Encoder()
_launch = msgspec.msgpack.Decoder(Launch)
_from_launcher: msgspec.msgpack.Decoder[FromLauncher] = msgspec.msgpack.Decoder(FromLauncher)


def render_frame(message: Message) -> bytes:
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_launch(body: bytes) -> Launch:
    return _launch.decode(body)


def check_launch(launch: Launch) -> None:
    """Raises ValueError: not one that may be carried out, whoever sent it."""
    if launch.uid <= 0 or launch.gid <= 0 or any(group <= 0 for group in launch.groups):
        raise ValueError("root's uid or gid")
    if not launch.argv or any(b"\0" in text for text in (*launch.argv, *launch.env, *launch.env.values())):
        raise ValueError("no command, or a zero byte in it")
    if any(not name or b"=" in name for name in launch.env):
        raise ValueError("a variable's name is empty or holds '='")
    if not launch.cgroup.startswith("/") or ".." in launch.cgroup.split("/") or not launch.cwd.startswith(b"/"):
        raise ValueError("a path is not absolute")
    if launch.owner < 0 or launch.owner > 0xFFFFFFFE:
        raise ValueError("an owner number that the probes use or cannot hold")


def parse_from_launcher(body: bytes) -> FromLauncher:
    return _from_launcher.decode(body)
