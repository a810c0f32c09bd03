"""Ansible: ping and copy as programs of their own, a playbook with command, copy and fetch; pipelining on and off."""
from __future__ import annotations

import os
import sys
from pathlib import Path

from common import HERE, HOST, LOGIN, WORK, begin, finish, run, said

BIN = Path(sys.executable).parent
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - command: echo one
      register: said
    - debug: {msg: "{{ said.stdout }}"}
    - copy: {content: "written\\n", dest: "%(work)s/written", mode: "0640"}
    - lineinfile: {path: "%(work)s/written", line: second}
    - fetch: {src: "%(work)s/written", dest: fetched, flat: true}
    - file: {path: "%(work)s/directory", state: directory}
    - command: "false"
      ignore_errors: true
"""

begin()
(HERE / "inventory").write_text(f"{HOST} ansible_user={LOGIN} ansible_python_interpreter=/usr/bin/python3\n")
(HERE / "file").write_text("by ansible\n")
(HERE / "playbook.yml").write_text(PLAYBOOK % {"work": WORK})
for pipelining in ("False", "True"):
    settings = {"ANSIBLE_PIPELINING": pipelining, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(HERE / "tmp"),
                "ANSIBLE_HOME": str(HERE / "home"), "ANSIBLE_DEPRECATION_WARNINGS": "False", "LC_ALL": "C.UTF-8",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": "/tmp/ansible-cp", "PATH": f"{BIN}:{os.environ['PATH']}"}
    ping = run(str(BIN / "ansible"), "-i", "inventory", "all", "-m", "ping", "-o", environment=settings)
    assert (ping[0], '"ping": "pong"' in ping[1]) == (0, True), ping
    copy = run(str(BIN / "ansible"), "-i", "inventory", "all", "-m", "copy", "-a", f"src=file dest={WORK}/copied", "-o",
               environment=settings)
    assert (copy[0], "CHANGED" in copy[1] or "SUCCESS" in copy[1]) == (0, True), copy
    played = run(str(BIN / "ansible-playbook"), "-i", "inventory", "playbook.yml", environment=settings)
    assert played[0] == 0, played
    said.append([line for line in played[1].splitlines() if "failed=" in line])
    said.append((HERE / "fetched").read_text())
    said.append(run("ssh", f"{LOGIN}@{HOST}", f"cat {WORK}/copied; stat -c %a {WORK}/written"))
    run("ssh", f"{LOGIN}@{HOST}", f"rm -r {WORK}/*")
finish()
