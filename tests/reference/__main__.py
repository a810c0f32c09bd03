"""Reference pages of docs/, made from the code: `make docs` writes them again, a test compares.

    cli        every command, argument and option, from click
    policy     what policies may speak of, from the schema that they are checked against
    recording  events, tables and views, from the recorder's schema and from who tells host events
    meanings   what an event says, in words
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from reference import cli, policy, recording

from agent.settings import reference as configuration

ROOT = Path(__file__).resolve().parents[2]
PAGES: dict[str, Callable[[], str]] = {
    str(configuration.REFERENCE): configuration.render_reference,
    str(configuration.EXAMPLE): configuration.render_example,
    "docs/reference-cli.md": cli.render_page,
    "docs/reference-policy.md": policy.render_page,
    "docs/reference-recording.md": recording.render_page,
}


def main() -> int:
    for name, render in PAGES.items():
        (ROOT / name).write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
