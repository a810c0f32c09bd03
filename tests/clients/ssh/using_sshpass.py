"""A password typed at a prompt, by sshpass; keyboard-interactive and public keys are not tried."""
from __future__ import annotations

import os

from common import AT, begin, finish, say

ONLY = ("-o", "PreferredAuthentications=password", "-o", "PubkeyAuthentication=no", "-o", "BatchMode=no",
        "-o", "NumberOfPasswordPrompts=1")
begin()
say("sshpass", "-e", "ssh", *ONLY, AT, "echo by password; exit 2",
    environment={"SSHPASS": os.environ.get("PASSWORD", "wrong")})
finish()
