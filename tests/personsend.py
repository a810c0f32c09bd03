"""A pseudo terminal from the person's side: what is typed, and what is seen."""
from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios


class PersonsEnd:
    """Of a process whose terminal is `slave`."""

    process: subprocess.Popen[bytes]
    master: int
    slave: int
    seen: bytes

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def until(self, word: bytes) -> bytes:
        """Everything up to this word; what came after it is kept."""
        while word not in self.seen:
            ready, _, _ = select.select([self.master], [], [], 20)
            assert ready, f"{word!r} did not come, but {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        before, _, self.seen = self.seen.partition(word)
        return before + word

    def end(self) -> int:
        """Exit code; the output is read meanwhile, a full terminal would keep it from ending."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            while pidfd not in (ready := select.select([pidfd, self.master], [], [], 20)[0]):
                assert ready, f"it does not end: {self.seen!r}"
                self.seen += os.read(self.master, 65536)
            while select.select([self.master], [], [], 0)[0]:
                self.seen += os.read(self.master, 65536)
        finally:
            os.close(pidfd)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)
