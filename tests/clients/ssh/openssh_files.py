"""scp by SFTP and by its old protocol, sftp: to and fro, folders, times, names that are awkward, SIZE bytes by hash."""
from __future__ import annotations

import os

from common import AT, HERE, SIZE, WORK, begin, finish, make_binary, run, said, say, sha256, ssh

begin()
digest = make_binary(HERE / "big", SIZE)
(HERE / "tree" / "inner").mkdir(parents=True)
(HERE / "tree" / "one").write_text("1\n")
(HERE / "tree" / "inner" / "two").write_text("22\n")
os.utime(HERE / "tree" / "one", (1_000_000_000, 1_000_000_000))
(HERE / "tree" / "one").chmod(0o640)
(HERE / "empty").write_bytes(b"")
(HERE / "with space 'and quote'").write_text("odd\n")
for options in ([], ["-O"]):
    there = f"{WORK}/{'old' if options else 'new'}"
    ssh(f"mkdir -p {there}")
    say("scp", *options, "-q", "big", "empty", f"{AT}:{there}/")
    ssh(f"sha256sum {there}/big {there}/empty | cut -c1-64")
    assert digest in str(said[-1]), said[-1]
    say("scp", *options, "-q", f"{AT}:{there}/big", "back")
    assert sha256(HERE / "back") == digest
    say("scp", *options, "-q", "-r", "-p", "tree", f"{AT}:{there}/")
    ssh(f"cd {there} && find tree -printf '%p %y %s %m\\n' | sort; stat -c %Y tree/one")
    say("scp", *options, "-q", "-r", "-p", f"{AT}:{there}/tree", "tree-back")
    said.append(run("sh", "-c", "cd tree-back && find . -type f -printf '%p %s %m\\n' | sort; stat -c %Y one"))
    say("scp", *options, "-q", "with space 'and quote'", f"{AT}:{there}/plain")
    say("scp", *options, "-q", f"{AT}:{there}/missing", "missing")
    say("scp", *options, "-q", "empty", f"{AT}:{there}/no/such/place")
    run("rm", "-rf", "tree-back", "back")
say("scp", "-q", "-3", f"{AT}:{WORK}/new/plain", f"{AT}:{WORK}/third")

BATCH = f"""
cd {WORK}
pwd
mkdir batch
cd batch
put big
put -p tree/one kept
get big got
rename kept moved
ln -s moved link
ln moved hard
chmod 600 moved
ls -1
rm hard
-rm missing
symlink moved second
get -r ../new/tree fetched
put -r tree
rmdir tree/none
"""
say("sftp", "-q", "-b", "-", AT, input=BATCH.encode())
assert sha256(HERE / "got") == digest
ssh(f"cd {WORK}/batch && sha256sum big | cut -c1-64; stat -c '%n %s %a' moved; readlink link second; find tree | sort")
for line in (f"cd {WORK}/batch\nreput big\n", f"cd {WORK}\ndf\n", f"cd {WORK}\ncopy third fourth\n",
             f"chmod 700 {WORK}\n",
             f"ls -l {WORK}/missing\n", f"rm {WORK}/third\nrm {WORK}/third\n", f"mkdir {WORK}\n", f"ls -1 {WORK}\n"):
    say("sftp", "-q", "-b", "-", AT, input=line.encode())
    if "df" in line:
        said[-1] = [said[-1][0], said[-1][1].count("\n")]
    else:
        said[-1] = [said[-1][0], [one for one in said[-1][1].splitlines() if "sftp>" not in one], said[-1][2]]
finish()
