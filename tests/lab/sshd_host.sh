#!/bin/sh
# As the first process of mount and process namespaces of its own: a host on which sshd finds its accounts, then sshd.
#
#     unshare --mount --pid --fork --kill-child --mount-proc --propagation private sshd_host.sh DIRECTORY COMMAND ...
set -eu
lab=$1
shift
dev=$lab/dev
mount -t tmpfs -o mode=755 dev "$dev"
for node in null zero full random urandom tty; do
  : >"$dev/$node"
  mount --bind "/dev/$node" "$dev/$node"
done
mkdir -m 755 "$dev/pts"
mkdir -m 1777 "$dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 pts "$dev/pts"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
ln -s /proc/self/fd/0 "$dev/stdin"
ln -s /proc/self/fd/1 "$dev/stdout"
ln -s /proc/self/fd/2 "$dev/stderr"
: >"$dev/log"
mount --bind "$lab/syslog.sock" "$dev/log"
mount --move "$dev" /dev
for name in passwd group shadow; do mount --bind "$lab/etc/$name" "/etc/$name"; done
mount --bind "$lab/home" /home
mount --bind "$lab/etc/resolv.conf" "$(readlink -f /etc/resolv.conf)"
# wtmp, lastlog and utmp are the machine's own.
mount -t tmpfs -o mode=755 log /var/log
mount -t tmpfs -o mode=755 run /run
mkdir -m 755 /run/sshd
exec "$@"
