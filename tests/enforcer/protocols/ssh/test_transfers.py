"""Exec lines that are the far end of a transfer; what differs by a word is none."""
from __future__ import annotations

import pytest

from enforcer.protocols.ssh.shell.analysis import analyse_line
from enforcer.protocols.ssh.transfers import GIT, READ, RSYNC, SCP, SFTP, WRITE, Transfer, recognise


def found(line: str) -> Transfer | None:
    return recognise(analyse_line(line.encode()))


@pytest.mark.parametrize(("line", "wanted"), [
    ("scp -t /srv/a", Transfer(SCP, (WRITE,), ("/srv/a",), True)),
    ("scp -v -r -p -d -t ~/in", Transfer(SCP, (WRITE,), ("~/in",), True)),
    ("scp -t .", Transfer(SCP, (WRITE,), ("~",), True)),
    ("/usr/bin/scp -qf -- '-x y'", Transfer(SCP, (READ,), ("~/-x y",))),
    ("scp -rf a", Transfer(SCP, (READ,), ("~/a",), True)),
    ("rsync --server --sender -de.LsfxCIvu . a", Transfer(RSYNC, (READ,), ("~/a",))),
    ("scp -f a /b", Transfer(SCP, (READ,), ("~/a", "/b"))),
    ("rsync --server -vlogDtpre.iLsfxCIvu . /srv/app/", Transfer(RSYNC, (WRITE,), ("/srv/app",), True)),
    ("rsync --server -e.LsfxCIvu . x", Transfer(RSYNC, (WRITE,), ("~/x",), True)),
    ("rsync --server --sender -vlogDtprze.iLsfxCIvu . a ./b/", Transfer(RSYNC, (READ,), ("~/a", "~/b"), True)),
    ("rsync --server -nlogDtprbKe.iLsfxCIvu --delete --timeout=30 --log-format=%i . /x",
     Transfer(RSYNC, (WRITE,), ("/x",), True, ("--delete", "--timeout", "--log-format", "-K", "-b", "-n"))),
    ("rsync --server --sender -re.iLsfxCIvu --remove-source-files . /x",
     Transfer(RSYNC, (READ, WRITE), ("/x",), True, ("--remove-source-files",))),
    ("git-upload-pack '/srv/a.git'", Transfer(GIT, (READ,), ("/srv/a.git",))),
    ("git-upload-archive 'a.git'", Transfer(GIT, (READ,), ("~/a.git",))),
    ("git-receive-pack '~/a.git'", Transfer(GIT, (WRITE,), ("~/a.git",))),
    ("git receive-pack ~/a.git", Transfer(GIT, (WRITE,), ("~/a.git",))),
    ("git upload-pack 'team/a.git'", Transfer(GIT, (READ,), ("~/team/a.git",))),
    ("/usr/lib/openssh/sftp-server", Transfer(SFTP)),
])
def test_transfers(line: str, wanted: Transfer) -> None:
    assert found(line) == wanted


@pytest.mark.parametrize("line", [
    "scp -t", "scp /a", "scp -t /a /b", "scp -tf /a", "scp -S /bin/x -t /a", "scp -o x -f /a", "scp -t -x",
    "scp -f -l 5 a", "scp -f *.log", "scp -f $X", "scp -f ../a", "scp -t /var/run/../x", "scp -t /a; ls",
    "scp -t /a > /b", "A=1 scp -t /a", "scp -t /a &", "sudo scp -t /a", "/tmp/scp -t /a", "~/scp -t /a",
    "(scp -t /a)", "scp -t ''", "scp -t ~root/x", "rsync /a /b", "rsync --server", "rsync --server .",
    "rsync --server . ", "rsync . --server /x", "rsync --server --sender -re.s --files-from=/etc/x . /a",
    "rsync --server -re.s --log-file=/etc/x . /a", "rsync --server -re.s --rsh=x . /a",
    "rsync --server -re.s -e x . /a", "rsync --server -rex . /a", "rsync --server -re.s --config=/x . /a",
    "rsync --server --daemon .", "rsync --server -rse.s . /a", "rsync --server -re.s . /a --log-file=/x",
    "rsync --server -re.s . -- /a", "rsync --server -re.s --temp-dir /x . /a",
    "rsync --server -re.s --backup-dir=/x . /a", "rsync --server -re.s --link-dest /x . /a",
    "rsync --server -re.s --partial-dir /x . /a", "rsync --server -re.s --write-devices . /a",
    "rsync --server --sender -re.s --copy-devices . /a", "rsync --server -re.s --delet . /a",
    "rsync --server -re.s /a", "rsync --server -re.s . ../a", "rsync --server -re.s -T /x . /a",
    "rsync --server -re.s -f x . /a", "git-upload-pack", "git-upload-pack --timeout=1 a", "git-upload-pack a b",
    "git-upload-pack ../a", "git push", "git", "git -c core.x=y upload-pack a",
    "git --exec-path=/x upload-pack a", "git-upload-pack '~ada/x'", "git-upload-pack $X", "git-shell -c x",
    "git upload-pack --upload-pack=x a", "sftp-server -d /x", "sftp-server; ls", "/tmp/sftp-server",
    "sftp-server -R",
])
def test_what_is_a_command_like_any(line: str) -> None:
    assert found(line) is None
