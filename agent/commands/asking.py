"""The caller's side of the control socket, for everything but `weir run` (agent/commands/run.py)."""
from __future__ import annotations

import re
import socket
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agent.config import DEFAULT_FILE, parse_config
from agent.contract import control
from agent.contract.control import Message, Reply
from agent.frames import FrameError, Frames, send
from agent.unit.units import has_agent

PATIENCE: Final = 90.0                # seconds; policies may take a minute to load
DEFAULT: Final = Path("/run/weir/control.sock")


class NotRunning(Exception):
    """Nobody listens."""


class AskingError(Exception):
    """There was no answer that makes sense."""


def control_path(file: str) -> Path:
    """Where the agent of this configuration listens; the default place where the default file cannot be read, or is
    wrong.  Raises AskingError where another cannot be read: it is another Weir's that is meant."""
    try:
        text = Path(file).read_text()
        config, _ = parse_config(text, file)
        if config is not None:
            return config.control
        # A mistake further down must not lead to another Weir: `weir reload` is there to be told of it.
        own = re.search(r"(?ms)^\[runtime\].*?(?=^\[|\Z)", text)
        runtime = tomllib.loads(own.group() if own else "").get("runtime", {})
        run = runtime.get("run") or f"/run/{runtime.get('name', 'weir')}"
        return Path(run, DEFAULT.name)
    except OSError as reason:
        if file != DEFAULT_FILE:
            raise AskingError(f"{file}: {reason.strerror}") from None
    except (ValueError, AttributeError, TypeError):
        pass
    return DEFAULT


def how_to_start(file: str) -> str:
    """Of the agent of this configuration."""
    if file != DEFAULT_FILE:
        return f"start it with: sudo weir --config {file} agent"
    if not Path(file).exists():
        return f"there is no {file} yet: sudo weir init writes one"
    return f"start it with: sudo {'systemctl start weir-agent' if has_agent() else 'weir agent'}"


def renamed(file: str) -> str:
    """What is wrong where an agent does run by this file, and the file has been given another [runtime] name or run
    since; "" where none does."""
    there = control_path(file)
    for path in sorted(Path("/run").glob("*/control.sock")):
        if path != there:
            with suppress(NotRunning, AskingError):
                answer = ask(path, control.AskStatus())
                if isinstance(answer, control.Status) and answer.config == file:
                    return (f"the agent of this file runs as {answer.runtime!r} ({path}), and the file says another "
                            "[runtime] name or run now, which no reload changes: put it back, or end that agent with "
                            "the name put back and start one anew")
    return ""


def _is_blocked(run: Path) -> bool:
    """As far as the asker may see."""
    with suppress(OSError):
        return (run / "bpf").is_dir()
    return False


def ask(path: Path, message: Message, *, until_end: bool = False) -> Reply:
    """One question, one answer; with `until_end` only after the agent has closed the connection.  Raises NotRunning,
    AskingError."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            send(sock, control.render_frame(message))
            frames = Frames(sock, control.LIMIT, descriptors=False)
            body = frames.next()
            if body is None:
                raise AskingError("the agent closed the connection without an answer")
            answer = control.parse_reply(body)
            while until_end and frames.receive():
                pass
            return answer
    except (FileNotFoundError, ConnectionRefusedError):
        block = ", and the block is in place: crews are cut off" if _is_blocked(path.parent) else ""
        raise NotRunning(f"the agent is not running (no answer at {path}){block}") from None
    except TimeoutError:
        raise AskingError("the agent does not answer") from None
    except (OSError, FrameError, ValueError, msgspec.MsgspecError) as reason:
        raise AskingError(str(reason)) from None
