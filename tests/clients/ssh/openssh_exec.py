"""ssh HOST COMMAND: status, signals, streams, half-close, environment, binary data, many at once."""
from __future__ import annotations

import hashlib
import subprocess
import threading

from common import AT, HERE, SIZE, begin, binary, finish, make_binary, said, sha256, ssh

begin()
ssh("echo out; echo err >&2; exit 7")
ssh("true")
ssh("exit 143")
ssh("sh -c 'kill -TERM $$'; exit $?")
ssh("kill -KILL $$")                              # exit-signal: OpenSSH's client says 255
ssh("no-such-program")
ssh("cat; echo end", input=b"half-closed\n")
ssh("read line; echo \"$line\"; exec cat >/dev/null", input=b"one\ntwo\n")
ssh("wc -c", input=bytes(range(256)) * 300)
ssh("echo $LAB_ONE/$LAB_TWO/$LC_TIME/$OTHER", "-o", "SendEnv=LAB_* LC_TIME OTHER",
    environment={"LAB_ONE": "a b", "LAB_TWO": "ü", "LC_TIME": "C.UTF-8", "OTHER": "not sent"})
ssh("tty; test -t 0; echo $?")
ssh("printf 'a\\0b\\377'; printf '\\1\\2' >&2")
ssh("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero | tr '\\0' x; exit 3")
said[-1] = [len(one) if isinstance(one, str) else one for one in said[-1]]
ssh("echo compressed", "-C")
ssh("echo rekeyed; head -c 3000000 /dev/zero | sha256sum", "-o", "RekeyLimit=256K")
ssh("  echo   spaces 'and'   \"quotes\" ; # comment\n echo second line")
ssh("exit 0", "-n", "-T", "-x", "-a")

data = binary(1_000_000)
done = subprocess.run(["ssh", AT, "cat"], input=data, capture_output=True)
assert (done.returncode, done.stdout == data) == (0, True), (done.returncode, done.stderr)

# SIZE bytes each way at once, by hash.
digest = make_binary(HERE / "big", SIZE)
with open(HERE / "big", "rb") as source, open(HERE / "back", "wb") as target:
    assert subprocess.run(["ssh", AT, "tee >(sha256sum >&2) | cat"], stdin=source, stdout=target,
                          stderr=open(HERE / "hash", "wb")).returncode == 0
assert sha256(HERE / "back") == digest
said.append((HERE / "hash").read_text().split()[0] == digest)

# A reader who does not read: nothing is lost, and the rest comes when he does.
with subprocess.Popen(["ssh", AT, "seq 1 400000"], stdout=subprocess.PIPE) as slow:
    first = slow.stdout.read(10)
    threading.Event().wait(1)
    rest = slow.stdout.read()
said.append([slow.returncode, hashlib.sha256(first + rest).hexdigest()])

many: list[object] = [None] * 12
def one(number: int) -> None:
    done = subprocess.run(["ssh", AT, f"echo {number}; exit {number}"], capture_output=True, text=True)
    many[number] = [done.returncode, done.stdout]
threads = [threading.Thread(target=one, args=(n,)) for n in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
said.append(many)
finish()
