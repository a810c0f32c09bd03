"""The crew's machine of vagrant/: Weir's configuration there, and what its crews' user and a person have at home.

    python -m lab.enrol KEY             as root; KEY: a private key that opens the others' handouts (lab/serve.py)

What a machine has handed out lies in /etc/weir/lab/ROLE afterwards; vagrant/etc has the rest, with the target and the
policies of each machine that is there.  Run again after a server's machine was made or started anew.
"""
from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from lab.hosts import USER, make_user
from lab.serve import CREW_CA, LOGIN, ROLES, SSH_PORT, Handout
from lab.weir import make_people

SOURCE = Path(__file__).resolve().parents[2] / "vagrant" / "etc"
ETC = Path("/etc/weir")
PERSON = "ada"                            # who logs in by `weir login`, at the identity provider as here
SERVERS = ("idp", "db", "ssh", "kube")
PUBLIC = ("ca.pem", "known_hosts", "issuer")              # all else that is handed out is root's alone
SSH_CONFIG = f"""Host ssh.lab.example
  Port {SSH_PORT}
  User {LOGIN}
  StrictHostKeyChecking yes
"""
# The machines of one Vagrantfile, on a network of their own, are made and taken away as they like.
ANY_HOST = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")


def handout(role: str, key: Path) -> Handout | None:
    """None where no such machine answers, or its server does not: it is said which."""
    done = subprocess.run(
        ["ssh", "-F", "none", "-i", str(key), "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", *ANY_HOST,
         f"root@{ROLES[role].host.ipv4}"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode:
        why = done.stderr.strip() if done.returncode == 255 else f"its weir-lab@{role}.service is not up"
        print(f"{role}: left out: {why}", flush=True)
        return None
    found: Handout = json.loads(done.stdout)
    return found


def configure(etc: Path, handed: Mapping[str, Handout]) -> None:
    """weir.toml, groups.toml, policies and what was handed out, below `etc`; what lay there of an earlier run goes."""
    for one in ("lab", "policies"):
        shutil.rmtree(etc / one, ignore_errors=True)
    (etc / "policies").mkdir(parents=True)
    for role, texts in handed.items():
        place = etc / "lab" / role
        place.mkdir(parents=True, mode=0o755)
        for name, text in texts.items():
            _write(place / name, text, 0o644 if name in PUBLIC else 0o600)
        if (SOURCE / "policies" / f"{role}.cedar").exists():
            shutil.copy(SOURCE / "policies" / f"{role}.cedar", etc / "policies")
    (etc / "weir.toml").write_text(text_of(handed))
    shutil.copy(SOURCE / "groups.toml", etc)


def text_of(roles: Collection[str]) -> str:
    """weir.toml where these machines are there."""
    parts = [SOURCE / "weir.toml", *(SOURCE / "targets" / f"{role}.toml" for role in SERVERS if role in roles)]
    return "".join(part.read_text() for part in parts)


def give_home(home: Path, handed: Mapping[str, Handout]) -> None:
    """What a person's clients have: a key and a token that open nothing, and files that say who the servers are."""
    files: dict[str, str] = {}
    if "db" in handed:
        files["db-ca.pem"] = handed["db"]["ca.pem"]
    if "ssh" in handed:
        files |= {".ssh/config": SSH_CONFIG, ".ssh/known_hosts": handed["ssh"]["known_hosts"]}
    if "kube" in handed:
        files |= {".kube/config": handed["kube"]["config"].replace(CREW_CA, str(home / ".kube/ca.pem")),
                  ".kube/ca.pem": handed["kube"]["ca.pem"]}
    owner = pwd.getpwnam(home.owner())
    for name, text in files.items():
        _write(home / name, text, 0o600)
        for path in {home / name, (home / name).parent}:
            os.chown(path, owner.pw_uid, owner.pw_gid)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode)
    path.write_text(text)


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m lab.enrol KEY", file=sys.stderr)
        return 2
    for name in (USER, PERSON):
        make_user(name)
    make_people()
    asked = {role: handout(role, Path(argv[0])) for role in SERVERS}
    handed = {role: texts for role, texts in asked.items() if texts is not None}
    configure(ETC, handed)
    for name in (USER, PERSON):
        give_home(Path(pwd.getpwnam(name).pw_dir), handed)
    print(f"configured: {', '.join(handed) or 'no target at all'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
