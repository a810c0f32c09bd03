"""rsync to and fro, with deletions; git clone, push, fetch and a refusal, over ssh://HOST and HOST:PATH."""
from __future__ import annotations

import os

from common import AT, HERE, LOGIN, SIZE, WORK, begin, finish, make_binary, run, said, say, sha256, ssh

begin()
digest = make_binary(HERE / "big", SIZE)
(HERE / "tree").mkdir()
for number in range(40):
    (HERE / "tree" / f"file {number}").write_text(f"{number}\n" * number)
say("rsync", "-a", "--no-owner", "tree", "big", f"{AT}:{WORK}/")
ssh(f"cd {WORK} && sha256sum big | cut -c1-64; find tree -type f | sort | xargs -d '\\n' cat | sha256sum")
assert digest in str(said[-1]), said
say("rsync", "-a", f"{AT}:{WORK}/big", "back")
assert sha256(HERE / "back") == digest
(HERE / "tree" / "file 3").unlink()
(HERE / "tree" / "file 4").write_text("other")
for changed in ("tree/file 4", "tree"):        # or whether their times differ depends on when this second began
    os.utime(HERE / changed, (10**9, 10**9))
say("rsync", "-a", "--delete", "--itemize-changes", "--out-format=%i %n", "tree/", f"{AT}:{WORK}/tree/")
said[-1] = [said[-1][0], sorted(said[-1][1].splitlines()), said[-1][2]]
say("rsync", "-an", "--delete", "--out-format=%n", "tree/", f"{AT}:{WORK}/tree/")
say("rsync", "-z", "-a", f"{AT}:{WORK}/tree/", "tree-back/")
said.append(run("diff", "-r", "tree", "tree-back"))
missing = run("rsync", "-a", f"{AT}:{WORK}/none", ".")
said.append(missing[0])

ssh(f"git init -q --bare -b main {WORK}/repository.git")
say("git", "clone", "-q", f"{AT}:{WORK}/repository.git", "clone")
GIT = ("git", "-C", "clone", "-c", "user.name=crew", "-c", "user.email=crew@lab.example", "-c", "commit.gpgsign=false")
FIXED = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
(HERE / "clone" / "big").write_bytes((HERE / "big").read_bytes()[:3_000_000])
say(*GIT, "checkout", "-q", "-b", "main")
say(*GIT, "add", ".")
say(*GIT, "commit", "-q", "-m", "one", environment=FIXED)
say(*GIT, "push", "-q", "origin", "main")
say("git", "clone", "-q", f"ssh://{AT}/home/{LOGIN}/{WORK}/repository.git", "second")
said.append(run("diff", "-r", "-x", ".git", "clone", "second"))
say("git", "-C", "second", "log", "--format=%H %s")
say("git", "ls-remote", f"{AT}:{WORK}/repository.git")
say("git", "-C", "second", "fetch", "-q", "origin")
ssh(f"git -C {WORK}/repository.git config receive.denyDeletes true; git -C {WORK}/repository.git for-each-ref")
refused = run(*GIT, "push", "-q", "origin", ":main")
said.append([refused[0], "remote rejected" in refused[2]])
none = run("git", "clone", "-q", f"{AT}:{WORK}/none.git", "third")
said.append([none[0], "does not appear to be a git repository" in none[2]])
finish()
