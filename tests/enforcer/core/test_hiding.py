"""Passwords in command lines."""
from __future__ import annotations

import pytest
from effort import at_most
from pump import TableGate
from sshtalk import Talk, close, data, env, open_channel, opened, run

from enforcer.core.hiding import FirstLine, asks, hide, hide_bytes
from enforcer.words import commands as words
from enforcer.words import events


@pytest.mark.parametrize("line", [
    "PGPASSWORD=S3CRET psql -h db", "export DB_PASSWORD='S3CRET'", "env MYSQL_PWD=S3CRET mysql",
    "AWS_SECRET_ACCESS_KEY=S3CRET aws s3 ls", "GITHUB_TOKEN=\"S3CRET\" gh pr list", "SSHPASS=S3CRET sshpass -e ssh x",
    "mysql -u root -pS3CRET -e 'SELECT 1'", "mysqldump --password=S3CRET shop", "mysql --password 'S3CRET' shop",
    "mariadb-dump -uroot -p'S3CRET' shop", "sshpass -p S3CRET ssh other", "sshpass -pS3CRET ssh other",
    "redis-cli -h cache -a S3CRET get x", "ldapsearch -x -D cn=admin -w S3CRET", "curl -u app:S3CRET https://x.example",
    "curl --user 'app:S3CRET' https://x.example", "openssl rsa -passin pass:S3CRET -in k",
    "curl -H 'Authorization: Bearer S3CRET' https://x.example", "psql postgresql://app:S3CRET@db/shop",
    "git clone https://x:S3CRET@git.example/a", "echo S3CRET | sudo -S id", "echo 'S3CRET' | sudo -k -S id",
    "echo app:S3CRET | chpasswd", "echo 'app:S3CRET' | sudo chpasswd", "psql -c \"ALTER ROLE a PASSWORD 'S3CRET'\"",
    "mysql -e \"CREATE USER a IDENTIFIED BY 'S3CRET'\"", "vault login --token S3CRET", "kinit --api-key=S3CRET",
    "cd /x && PGPASSWORD=S3CRET psql; mysql -pS3CRET", "sh -c 'PGPASSWORD=S3CRET psql'",
])
def test_hidden(line: str) -> None:
    assert hide(line) == line.replace("S3CRET", "***")


@pytest.mark.parametrize("line", [
    "ls -la", "cd $PWD; PWD=/tmp", "mysql -p -e 'SELECT 1'", "mysql -P 3306 shop", "docker login --password-stdin",
    "psql --password", "psql --no-password -h db", "PGPASSWORD=$PW psql", "PGPASSWORD=\"$PW\" psql",
    "PGPASSFILE=/x psql", "mkdir -pv /tmp/x", "ssh-keygen -p", "rsync --password-file=/etc/x a b",
    "curl -u app https://x.example", "git clone ssh://git@host:22/a", "ldapsearch -W -x", "sudo -S id",
    # What is done is never hidden.
    "TOKEN='rm -rf /' sh -c \"$TOKEN\"", "TOKEN=$(rm -rf /tmp/x)", "PASSWORD=`reboot` true", "X_TOKEN=a;rm b",
    "PASSWORD=" + "cm0gLXJm" * 20 + " sh -c x",
])
def test_as_it_is(line: str) -> None:
    shown = hide(line)
    assert shown == line or shown == line.replace("X_TOKEN=a", "X_TOKEN=***")


def test_any_bytes() -> None:
    assert hide_bytes(b"\xff PGPASSWORD=S3CRET \x00 \xfe") == b"\xff PGPASSWORD=*** \x00 \xfe"


@pytest.mark.parametrize("unit", ["mysql ", "curl -u ", "echo ", "a://", "--password ", "PASSWORD", "TOKEN="])
def test_long_lines_cost_little(unit: str) -> None:
    with at_most(60):
        hide(unit * ((256 << 10) // len(unit)))


def blobs(talk: Talk) -> bytes:
    return b"\n".join(repr(one.event).encode() + b"".join(content for _, _, content in one.blobs)
                      for one in talk.log if isinstance(one, words.Record))


def test_no_line_with_one_is_recorded_or_shown() -> None:
    """Permitted, denied, held; also where policy's reason quotes it."""
    for gate in (TableGate(), TableGate(deny={("ssh:exec", "mysql -pS3CRET")}),
                 TableGate(hold={("ssh:exec", "mysql -pS3CRET")})):
        talk = Talk(gate)
        talk.crew(open_channel(number=7))
        talk.server(opened(0, 70))
        talk.crew(env(0, "PGPASSWORD", "S3CRET"), run(0, "mysql -pS3CRET"))
        assert b"S3CRET" not in blobs(talk)
        assert b"***" in blobs(talk)
        assert "S3CRET" not in repr([one for one in talk.holds])
        (intent,) = talk.events(events.Intent)[-1:]
        assert intent.requests


def test_what_is_too_long_for_approvers_is_not_cut_without_a_word() -> None:
    line = "echo " + " " * 5000 + "; reboot"
    talk = Talk(TableGate(hold={("ssh:exec", "reboot")}))
    talk.crew(open_channel(number=7))
    talk.server(opened(0, 70))
    talk.crew(run(0, line))
    (hold,) = talk.holds
    assert hold.text == line


# What programs read

@pytest.mark.parametrize(("line", "said"), [
    (b"sudo -S id", True), (b"sudo -kS -p '' id", True), (b"sudo -H -S -p 'password:' -u root /bin/sh -c 'x'", True),
    (b"sudo --stdin id", True), (b"cd /x; sudo -S id", True), (b"docker login -u x --password-stdin", True),
    (b"gh auth login --with-token", True), (b"passwd --stdin app", True), (b"openssl rsa -passin stdin -in k", True),
    (b"sudo id", False), (b"sudo -s", False), (b"cat -S", False), (b"sudo id; cat -S", False), (b"\xff", False),
])
def test_who_reads_a_password(line: bytes, said: bool) -> None:
    assert asks(line) is said


@pytest.mark.parametrize("cut", range(1, 12))
def test_the_first_line_however_it_is_cut(cut: int) -> None:
    first, given = FirstLine(), b"S3CRET\nrest\nmore"
    assert b"".join(first.feed(given[at:at + cut]) for at in range(0, len(given), cut)) == b"******\nrest\nmore"
    assert first.hidden == 6


def test_no_more_than_a_password_is_hidden() -> None:
    first = FirstLine()
    assert first.feed(b"x" * 200) + first.feed(b"y" * 200) + first.feed(b"z") == b"*" * 256 + b"y" * 144 + b"z"


def test_a_password_to_sudo_is_not_recorded_and_goes() -> None:
    talk = Talk()
    talk.running(line="sudo -S id")
    assert talk.crew(data(0, b"S3CRET\nmore")) == ["> data 70 S3CRET\nmore"]
    talk.crew(close(0))
    assert b"S3CRET" not in blobs(talk)
    assert b"******\nmore" in blobs(talk)
    assert [(one.name, one.value) for one in talk.events(events.SessionNoted)] == [
        ("unseen", "operation 1: of its input, 6 bytes are where it reads a password and are recorded as stars")]
    (ended,) = talk.events(events.StreamEnded)
    assert (ended.bytes, ended.kept) == (11, 11)
