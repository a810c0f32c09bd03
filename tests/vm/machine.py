"""One virtual machine under QEMU, driven over SSH with a key made for this run.

A copy-on-write disk over the image makes each machine a fresh one.  QEMU is this process's child, ends with it, and is
always ended by `close`.
"""
from __future__ import annotations

import base64
import contextlib
import ctypes
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm.image import USER

PR_SET_PDEATHSIG: Final = 1
BOOT_SECONDS: Final = 600
# Emulated, instructions that move bytes one by one are slow; kernel and libc take them where they are said to be fast.
# With a thread for each processor one never came back from code that the other had just patched (a program of BPF LSM
# attached to a function that both ran): one thread; and one processor, for two wait for each other there.
PROCESSOR: Final = "max,erms=off,fsrm=off"
LEFT_OUT: Final = "powernow_k8,kvm_amd,kvm_intel"      # tried once a processor and event, for nothing


class MachineError(Exception):
    """The machine did not do what was asked; the message says what, with the console's last lines."""


@dataclass(frozen=True)
class Done:
    """A command that was run in the guest.  `status` is 124 where it took too long."""
    status: int
    output: str
    seconds: float


class Machine:
    def __init__(self, image: Path, directory: Path, *, kvm: bool = False, more: Sequence[str] = ()) -> None:
        """`image`: of image.build; `directory`: of this run; `more`: for QEMU.  Without `kvm` all is emulated."""
        self._directory, self._port, self.log = directory, _free_port(), directory / "console.log"
        self._key = directory / "key"
        self._connection: subprocess.Popen[bytes] | None = None       # logging in takes seconds where it is emulated
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vm", "-f", str(self._key)])
        disk = directory / "disk.qcow2"
        _run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image / "root.img"), str(disk)])
        self._qemu = subprocess.Popen(
            ["nice", "-n", "2", "qemu-system-x86_64", "-machine", "pc", "-cpu", PROCESSOR, "-accel",
             "kvm" if kvm else "tcg,thread=single",
             "-smp", "1", "-m", "6144", "-nodefaults", "-display", "none",
             "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd"),
             "-append", f"root=/dev/vda rw console=ttyS0 module_blacklist={LEFT_OUT}",
             "-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe",
             "-smbios", f"type=11,value=io.systemd.credential.binary:tmpfiles.extra={_admission(self._key)}",
             "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22",
             "-device", "virtio-net-pci,netdev=net,addr=3", "-device", "virtio-rng-pci",
             "-serial", f"file:{self.log}", *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(directory / "qemu.log").open("wb"),
            preexec_fn=_die_with_parent)

    def reboot(self) -> float:
        """Until it is up again, in seconds; units may have failed."""
        before = self.run("cat /proc/sys/kernel/random/boot_id", seconds=60).output
        self.run("sudo systemctl reboot", seconds=60)
        return self.wait_booted(before, whole=False)

    def wait_booted(self, before: str = "", *, whole: bool = True) -> float:
        """Until systemd says that it is up, in seconds.  `before`: id of the boot that is over.  Where it has to be
        `whole`, a unit that failed is MachineError."""
        start = time.monotonic()
        self._disconnect()
        while not self._is_up(before):
            if self._qemu.poll() is not None or time.monotonic() - start > BOOT_SECONDS:
                raise MachineError(f"no SSH after {time.monotonic() - start:.0f} s\n{self._console()}")
            time.sleep(1)
        up = self.run("systemctl is-system-running --wait", seconds=BOOT_SECONDS)
        if up.status and (whole or up.output != "degraded"):
            raise MachineError(f"systemd is {up.output} {self.run('systemctl --failed', seconds=60).output}")
        self._connection = subprocess.Popen(
            self.ssh("-M", "-N"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent)
        return time.monotonic() - start

    def _is_up(self, before: str) -> bool:
        done = self.run("cat /proc/sys/kernel/random/boot_id", seconds=20)
        return done.status == 0 and done.output != before

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection.wait()
            self._connection = None

    def run(self, command: str, *, seconds: float, each: Callable[[str], None] | None = None) -> Done:
        """As the machine's user, by its login shell.  `each` is told every line as it comes."""
        start, lines = time.monotonic(), []
        with subprocess.Popen([*self.ssh(), f"timeout --kill-after=20 {seconds:.0f} bash -lc {shlex.quote(command)}"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace") as process:
            with _killed_after(process, seconds + 60):
                for line in process.stdout or ():
                    lines.append(line)
                    if each is not None:
                        each(line.rstrip())
        return Done(process.returncode, "".join(lines).rstrip(), time.monotonic() - start)

    def write(self, path: str, content: bytes, *, mode: str = "644") -> None:
        """A file of root's."""
        done = subprocess.run([*self.ssh(), f"sudo install -D -m {mode} /dev/stdin {shlex.quote(path)}"], input=content,
                              capture_output=True, timeout=300)
        if done.returncode:
            raise MachineError(f"{path} in the guest: {done.stderr.decode(errors='replace')}")

    def ssh(self, *options: str) -> list[str]:
        """The command that logs in, for a person also; over the one connection that is kept, where it is."""
        return ["ssh", *options, "-F", "none", "-S", f"{self._directory}/ssh", "-i", str(self._key), "-p",
                str(self._port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                "-o", f"UserKnownHostsFile={self._directory}/known", "-o", "LogLevel=ERROR",
                "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=10",
                f"{USER}@127.0.0.1"]

    def close(self) -> None:
        self._disconnect()
        self._qemu.terminate()
        try:
            self._qemu.wait(20)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
            self._qemu.wait()

    def _console(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""


@contextlib.contextmanager
def machine(image: Path, directory: Path, *, kvm: bool = False,
            disk: Callable[[Path], Sequence[str]] = lambda _: ()) -> Iterator[Machine]:
    """A machine of its own below `directory`, its disks gone afterwards.  `disk` makes one more there: QEMU's words."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="run-") as own:
        made = Machine(image, Path(own), kvm=kvm, more=disk(Path(own)))
        try:
            yield made
        finally:
            made.close()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _admission(key: Path) -> str:
    """What lets the key in: lines of tmpfiles.d as a credential (systemd.exec(5), smbios type 11), base64."""
    home, public = f"/home/{USER}/.ssh", key.with_suffix(".pub").read_text().strip()
    lines = f"d {home} 0700 {USER} {USER}\nf {home}/authorized_keys 0600 {USER} {USER} - {public}\n"
    return base64.b64encode(lines.encode()).decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
