"""Checks policy files: `python -I -m enforcer.policy.check FILE ...`.

One line an error, FILE:LINE:COLUMN: what is wrong; exit 1.  The root side runs this as the enforcer's user.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from enforcer.policy.cedar import load_policies
from enforcer.words.errors import ConfigError


def check_files(paths: Sequence[str]) -> list[str]:
    """What is wrong: of each file by itself, then of all together."""
    files: dict[str, str] = {}
    found = []
    for path in paths:
        try:
            files[path] = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            found.append(f"{path}:0:0: cannot be read as UTF-8 text: {error}")
    for path, text in files.items():
        found += _problem({path: text})
    return found or _problem(files)


def _problem(files: dict[str, str]) -> list[str]:
    try:
        load_policies(files)
    except ConfigError as error:
        return [str(error)]
    return []


def main(arguments: Sequence[str]) -> int:
    found = check_files(arguments)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
