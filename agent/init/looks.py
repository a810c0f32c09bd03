"""Pure: whether a command looks like that of a crew.

No boundary: it only says what is offered to a person first.  Whatever they name is a crew.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Final

from agent.settings.fields import HOME_PATH
from agent.unit.dropin import SYSTEM
from agent.workload.view import closed

FRAMEWORKS: Final = (
    "crewai", "langchain", "langchain_core", "langgraph", "autogen", "autogen_agentchat", "autogen_core", "ag2",
    "llama_index", "pydantic_ai", "agents", "smolagents", "semantic_kernel", "haystack", "phidata", "agno", "dspy")
_ALONE: Final = frozenset(FRAMEWORKS) - {"agents"}      # of a word by itself: "agents" is any directory's name
_PYTHON: Final = re.compile(r"python[0-9.]*")
_IMPORTS: Final = re.compile(
    rb"^[ \t]*(?:from|import)[ \t]+(" + b"|".join(one.encode() for one in FRAMEWORKS) + rb")\b", re.MULTILINE)
SCRIPT_LIMIT: Final = 1 << 16         # bytes of a script that are looked at


def why_a_crew(
    words: Sequence[str], directory: str, packages: Callable[[str], Sequence[str]], script: Callable[[str], bytes],
) -> str:
    """Empty: it does not look like one.  `packages(program)`: names of what is installed beside it; `script(path)`: how
    it begins, empty where it cannot be read."""
    if not words:
        return ""
    for word in words[:16]:
        for part in re.split(r"[^A-Za-z0-9_]+", PurePosixPath(word).name.replace("-", "_")):
            if part in _ALONE:
                return f"its command names {part}"
    beside = frozenset(packages(words[0]))
    if there := [one for one in FRAMEWORKS if one in beside]:
        return f"{there[0]} is installed beside {words[0]}"
    if _PYTHON.fullmatch(PurePosixPath(words[0]).name) and (path := script_of(words, directory)):
        if found := _IMPORTS.search(script(path)[:SCRIPT_LIMIT]):
            return f"{path} imports {found[1].decode()}"
    return ""


def script_of(words: Sequence[str], directory: str) -> str:
    """What an interpreter is given to run, as an absolute path; empty: nothing that is a file."""
    for word in words[1:]:
        if word in ("-m", "-c"):
            return ""
        if not word.startswith("-"):
            path = word if word.startswith("/") else f"{directory.rstrip('/')}/{word}"
            return path if path.startswith("/") and "\0" not in path else ""
    return ""


def needed(words: Sequence[str], directory: str, home: str) -> tuple[str, ...]:
    """Directories that it needs to see, besides the system and its user's home."""
    found = []
    if words:
        program = PurePosixPath(words[0])
        found.append(str(program.parent.parent if program.parent.name == "bin" else program.parent))
    if script := script_of(words, directory):
        found.append(str(PurePosixPath(script).parent))
    found.append(directory)
    tops = [one for one in map(_top, found) if one and not _within(one, home) and _is_shown(one)]
    return tuple(one for one in dict.fromkeys(tops) if not any(_within(one, top) for top in tops if top != one))


_SYSTEM: Final = (*SYSTEM, "/lib32", "/lib64", "/libx32", "/dev", "/proc", "/sys", "/run")


def _is_shown(path: str) -> bool:
    """Whether a workload may be shown it, as weir.toml would have it."""
    try:
        return not closed(path, path) and HOME_PATH.parse(path) == path
    except ValueError:
        return False


def _top(path: str) -> str:
    """Where a program and what lies beside it usually is: /opt/NAME.  Empty: the system's, or nowhere."""
    if not path.startswith("/") or path == "/" or any(_within(path, top) for top in _SYSTEM):
        return ""
    parts = PurePosixPath(path).parts
    return str(PurePosixPath(*parts[:3])) if parts[1] in ("opt", "srv") else path


def _within(path: str, top: str) -> bool:
    return bool(top) and (path == top or path.startswith(top.rstrip("/") + "/"))
