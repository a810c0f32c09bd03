"""Checks metadata: `python -I -m enforcer.identity.saml.check FILE ISSUER [FILE ISSUER ...]`.

One line an error, FILE:LINE:COLUMN: what is wrong; exit 1.  The root side runs this as the identity process' user.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from enforcer.identity.saml.metadata import parse_metadata
from enforcer.words.errors import AuthenticationError


def main(arguments: Sequence[str]) -> int:
    wrong = 0
    for file, issuer in zip(arguments[::2], arguments[1::2], strict=True):
        try:
            parse_metadata(Path(file).read_bytes(), issuer)
        except AuthenticationError as reason:
            print(f"{file}:0:0: {reason}")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
