"""Weir on a fresh Debian 12 with Debian's kernel and systemd: a virtual machine, `./bootstrap test-vm`."""
