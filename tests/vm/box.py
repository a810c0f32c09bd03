"""The box of vagrant/: a disk with Debian 12 and all that its machines run, so that none of them needs a network.

    python -m vm.box FILE               as root; ten to thirty minutes, of which most are bootstrap's

Its tree is made as the test machine's (image.py); in it, at this host's speed, ./bootstrap installs Weir and the lab's
servers.  What bootstrap has at this host's prefix already goes in first; nothing else of this host stays.

https://developer.hashicorp.com/vagrant/docs/boxes/base says what the user `vagrant` has to be,
https://vagrant-libvirt.github.io/vagrant-libvirt/boxes.html what lies in FILE.
"""
from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from vm import host, image, quick

ROOT: Final = Path(__file__).resolve().parents[2]
LABEL: Final = "weir-lab"
SIZE: Final = 24                      # GiB, sparse
START: Final = 2048                   # sectors before the one partition: the boot loader lies there
SECTOR: Final = 512
CHECKOUT: Final = "weir"              # below the root; Vagrant's synced folder is laid over it
PREFIX: Final = "opt/weir"
FROM_PREFIX: Final = ("venv", "dev", "kube", "keycloak", "installed", "hot")
BUILD_SECONDS: Final = 7200
PACKAGES: Final = ("grub-pc-bin", "grub-common", "rsync")
# Whoever knows Vagrant has this key: at a machine's first start Vagrant puts one of its own in its place.
INSECURE: Final = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1Y"
    "eS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pz"
    "C6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyL"
    "bIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key")
MODULES: Final = "biosdisk part_msdos ext2 search search_label normal linux configfile"
# What an emulated processor tries for nothing is left out, as in machine.py.
GRUB: Final = f"""set timeout=0
search --label {LABEL} --set root
menuentry Debian {{
  linux /vmlinuz root=LABEL={LABEL} ro net.ifnames=0 console=tty0 console=ttyS0 module_blacklist=kvm_amd,kvm_intel
  initrd /initrd.img
}}
"""
FILES: Final = {
    "etc/network/interfaces": "auto lo\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\n",
    "etc/fstab": f"LABEL={LABEL} / ext4 defaults 0 1\n",
    "etc/hostname": "weir-lab\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 weir-lab\n::1 localhost\n",
    "etc/ssh/sshd_config.d/vagrant.conf": "UseDNS no\n",
    # Every machine makes keys of its own.
    "etc/systemd/system/ssh.service.d/keys.conf": "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\n"
                                                  "ExecStartPre=/usr/sbin/sshd -t\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "home/vagrant/.ssh/authorized_keys": INSECURE + "\n",
    "boot/grub/grub.cfg": GRUB,
}
ACCOUNT: Final = 'set -e; chroot "$1" useradd -m -s /bin/bash vagrant; echo vagrant:vagrant | chroot "$1" chpasswd'
SETTLED: Final = f"""set -e
chmod 440 "$1/etc/sudoers.d/vagrant"; chmod 700 "$1/home/vagrant/.ssh"; chmod 600 "$1/home/vagrant/.ssh/authorized_keys"
chroot "$1" chown -R vagrant:vagrant /home/vagrant/.ssh
rm -f "$1"/etc/ssh/sshd_not_to_be_run "$1"/etc/ssh/ssh_host_*; chroot "$1" systemctl enable ssh
chroot "$1" grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /boot/grub/core.img {MODULES}
rm -rf "$1"/usr/local/share/ca-certificates/* "$1"/etc/pip.conf "$1"/root/.m2 "$1"/root/.cache "$1"/root/go
chroot "$1" update-ca-certificates --fresh
truncate -s 0 "$1/etc/machine-id"
"""


def fill(root: Path) -> None:
    """A tree of Debian, while mmdebstrap still has it mounted, becomes the box's."""
    _shell(ACCOUNT, root)
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    _install(root)
    _shell(SETTLED, root)


def _install(root: Path) -> None:
    """By bootstrap, with what this host needs to reach registries; SETTLED takes that away."""
    for name, text in host.read().authorities.items():
        (root / "usr/local/share/ca-certificates" / name).write_text(text)
    if host.PIP.exists():
        shutil.copy(host.PIP, root / "etc")
    _shell('chroot "$1" update-ca-certificates', root)
    for one in FROM_PREFIX:
        if (quick.PREFIX / one).exists():
            (root / PREFIX).mkdir(parents=True, exist_ok=True)
            image.run(["cp", "-aH", str(quick.PREFIX / one), str(root / PREFIX)])
    (root / CHECKOUT).mkdir()
    subprocess.run(["tar", "-C", str(root / CHECKOUT), "-xz"], input=quick.packed(ROOT), check=True, timeout=600)
    subprocess.run(["chroot", str(root), f"/{CHECKOUT}/bootstrap", "servers"], check=True, timeout=BUILD_SECONDS,
                   env=os.environ | {"WEIR_PREFIX": f"/{PREFIX}", "HOME": "/root"})


def _shell(text: str, root: Path) -> None:
    image.run(["sh", "-c", text, "sh", str(root)])


def disk(root: Path, to: Path) -> None:
    """One partition, and GRUB before it as grub-install would lay it there: no loop device is needed."""
    with to.open("wb") as file:
        file.truncate(SIZE * 2**30)
    sectors = SIZE * 2**30 // SECTOR - START
    image.run(["mkfs.ext4", "-q", "-F", "-L", LABEL, "-E", f"offset={START * SECTOR}", "-d", str(root), str(to),
               f"{sectors * SECTOR // 1024}k"])
    first, core = root / "usr/lib/grub/i386-pc/boot.img", root / "boot/grub/core.img"
    if core.stat().st_size > (START - 1) * SECTOR:
        raise image.ImageError(f"{core} is too large to lie before the partition")
    with to.open("r+b") as file:
        file.write(first.read_bytes()[:440] + table(sectors))
        file.seek(SECTOR)
        file.write(core.read_bytes())


def table(sectors: int) -> bytes:
    """The rest of the first sector: the disk's signature, one bootable Linux partition, three empty ones.
    Where it lies on cylinders and heads is said by the values for "too far": sectors count."""
    one = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", START, sectors)
    return bytes(6) + one + bytes(48) + b"\x55\xaa"


def build(to: Path) -> None:
    image.need("mmdebstrap", "mkfs.ext4", "qemu-img")
    if os.geteuid() != 0:
        raise image.ImageError("it makes a tree of root's files: run it as root")
    packages = (*image.PACKAGES, *image.lab_packages(), *PACKAGES)
    log = to.with_suffix(".log")
    with tempfile.TemporaryDirectory(dir=to.parent) as temporary:
        root, raw, made = Path(temporary, "root"), Path(temporary, "raw"), Path(temporary, "box.img")
        into = f'PYTHONPATH={ROOT / "tests"} {sys.executable} -P -m vm.box --into "$1" >{log} 2>&1'
        print(f"Debian's packages, then ./bootstrap servers ({log})", flush=True)
        image.debian(root, host.apt_options(), packages, image.BEFORE, (into, *image.QUIET), BUILD_SECONDS)
        print("the disk", flush=True)
        disk(root, raw)
        image.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(made)])
        raw.unlink()
        about = Path(temporary, "metadata.json")
        about.write_text(json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": SIZE}))
        whole = Path(temporary, to.name)
        image.run(["tar", "-C", temporary, "-cf", str(whole), about.name, made.name])
        whole.rename(to)


def main(words: list[str]) -> int:
    try:
        match words:
            case ["--into", root]:
                fill(Path(root))
            case [file]:
                build(Path(file).absolute())
            case _:
                print("usage: python -m vm.box FILE", file=sys.stderr)
                return 2
    except (image.ImageError, subprocess.CalledProcessError) as error:
        print(f"vm.box: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
