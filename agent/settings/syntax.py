"""Pure: what is wrong with a text that is no TOML, in words of its own."""
from __future__ import annotations

import re

from agent.settings.fields import Problem


def syntax_problem(file: str, said: str, text: str) -> Problem:
    """tomllib says "... (at line 3, column 7)" or "(at end of document)"."""
    message, _, place = said.partition(" (at ")
    found = re.match(r"line (\d+), column (\d+)", place)
    line, column = (int(found[1]), int(found[2])) if found else (0, 0)
    value = "".join(text.split("\n")[line - 1:line])[column - 1:] if line else ""
    unquoted = message == "Invalid value" and re.match(r"[A-Za-z_/~*.]", value)
    twice = message == "Cannot overwrite a value"
    return Problem(file, line, "", f"not TOML: {message[:1].lower()}{message[1:]}"
                   + (": a text stands in quotes" if unquoted else "")
                   + (": it stands in this section already; is the [[...]] above it still a comment?" if twice else "")
                   + (" at the end of the file" if place.startswith("end") else ""))
