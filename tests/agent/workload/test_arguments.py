"""No secret of a command line gets as far as attribution, and what an auditor needs does."""
from __future__ import annotations

import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workload import facts
from agent.workload.arguments import mask_arguments
from agent.workload.facts import parse_argv

KEY = "-----BEGIN RSA PRIVATE KEY-----\nhunter2\nabc=\n-----END RSA PRIVATE KEY-----"

# arguments | the same, as they are recorded
MASKED = [
    # URLs
    ("psql postgresql://u:hunter2@host/db", "psql postgresql://u:***@host/db"),
    ("psql postgres://u:hun@ter2@host:5432/db", "psql postgres://u:***@host:5432/db"),
    ("x postgresql+psycopg2://u:hun/ter2@host/db", "x postgresql+psycopg2://u:***@host/db"),
    ("x redis://:hunter2@host/0", "x redis://:***@host/0"),
    ("x DATABASE_URL=postgresql://u:hunter2@host/db", "x DATABASE_URL=postgresql://u:***@host/db"),
    ("x jdbc:postgresql://u:hunter2@h/db", "x jdbc:postgresql://u:***@h/db"),
    ("x a://u:hunter2@h,b://v:hunter2@i", "x a://u:***@h,b://v:***@i"),
    ("x https://ghp_hunter2@github.com/o/r", "x https://***@github.com/o/r"),
    ("x postgresql://u@h/db?password=hunter2&sslmode=require", "x postgresql://u@h/db?password=***&sslmode=require"),
    ("x https://h/?access_token=hunter2&page=3#top", "x https://h/?access_token=***&page=3#top"),
    # pairs
    ("x --password=hunter2", "x --password=***"),
    ("x --PassWord=hunter2", "x --PassWord=***"),
    ("x --db-passwd=hunter2", "x --db-passwd=***"),
    ("x --api-key=hunter2", "x --api-key=***"),
    ("env PGPASSWORD=hunter2 psql", "env PGPASSWORD=*** psql"),
    ("x MYSQL_PWD=hunter2", "x MYSQL_PWD=***"),
    ("x OPENAI_API_KEY=hunter2", "x OPENAI_API_KEY=***"),
    ("x AWS_SECRET_ACCESS_KEY=hunter2", "x AWS_SECRET_ACCESS_KEY=***"),
    ("x DB_PASS=hunter2", "x DB_PASS=***"),
    ("x token=hunter2", "x token=***"),
    ("x secret=hunter2", "x secret=***"),
    ("x {password:hunter2}", "x {password:***"),
    # an argument after its option
    ("x --password hunter2 --host h", "x --password *** --host h"),
    ("x --token hunter2", "x --token ***"),
    ("x --api-key hunter2 --host h", "x --api-key *** --host h"),
    ("x -password hunter2", "x -password ***"),
    # options that only their programs know
    ("mysql -u root -phunter2 db", "mysql -u root -p*** db"),
    ("/usr/bin/mysqldump -Bphunter2 -P 3306 -p", "/usr/bin/mysqldump -Bp*** -P 3306 -p"),
    ("docker exec c mariadb -phunter2", "docker exec c mariadb -p***"),
    ("sshpass -p hunter2 ssh h", "sshpass -p *** ssh h"),
    ("sshpass -phunter2 ssh h", "sshpass -p*** ssh h"),
    ("curl -u ada:hunter2 http://h", "curl -u *** http://h"),
    ("curl --user=ada:hunter2 http://h", "curl --user=*** http://h"),
    ("redis-cli -a hunter2", "redis-cli -a ***"),
]
MASKED_WORDS = [
    # arguments with spaces
    (("psql", "host=h password=hunter2 user=u"), ("psql", "host=h password=*** user=u")),
    (("psql", "password=hunter2 host=h"), ("psql", "password=*** host=h")),
    (("psql", "host=h password = 'hun\\'ter 2' user=u"), ("psql", "host=h password = *** user=u")),
    (("psql", "host=h password='hunter 2"), ("psql", "host=h password=***")),
    (("psql", "postgresql://u:hunter 2@host/db"), ("psql", "postgresql://u:***@host/db")),
    (("env", "PGPASSWORD=correct hunter2 horse"), ("env", "PGPASSWORD=***")),
    (("x", "--password=correct hunter2"), ("x", "--password=***")),
    (("x", "password=correct hunter2"), ("x", "password=***")),
    (("x", "--set=password=correct hunter2"), ("x", "--set=password=***")),
    (("x", "--password", "correct hunter2", "y"), ("x", "--password", "***", "y")),
    (("x", "--data", '{"user": "u", "password": "hun\\"ter 2", "port": 1}'),
     ("x", "--data", '{"user": "u", "password": ***, "port": 1}')),
    (("x", "--data", '{\\"password\\": \\"hunter 2\\", \\"port\\": 1}'),
     ("x", "--data", '{\\"password\\": ***, \\"port\\": 1}')),
    (("curl", "-H", "Authorization: Bearer hunter2", "h"), ("curl", "-H", "Authorization: Bearer ***", "h")),
    (("curl", "-H", "authorization: Basic aHVudGVyMg==", "h"), ("curl", "-H", "authorization: Basic ***", "h")),
    (("curl", "-H", "X-Api-Key: hunter2"), ("curl", "-H", "X-Api-Key: ***")),
    (("x", "header=Bearer hunter2 y"), ("x", "header=Bearer *** y")),
    (("x", KEY + "\nnext"), ("x", "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nnext")),
    (("x", "-----BEGIN PRIVATE KEY-----\nhunter2"), ("x", "-----BEGIN PRIVATE KEY-----***")),
    # scripts
    (("sh", "-c", "PGPASSWORD=hunter2 psql -h db"), ("sh", "-c", "PGPASSWORD=*** psql -h db")),
    (("sh", "-c", "PGPASSWORD='hunter 2'\"x\" psql -h db"), ("sh", "-c", "PGPASSWORD=*** psql -h db")),
    (("sh", "-c", "x --password 'hunter 2' -h db"), ("sh", "-c", "x --password *** -h db")),
    (("bash", "-ec", "mysql -uroot -phunter2 db; true"), ("bash", "-ec", "mysql -uroot -p*** db; true")),
    (("bash", "-c", "sshpass -p hunter2 ssh h"), ("bash", "-c", "sshpass -p *** ssh h")),
    (("sh", "-c", "psql 'postgresql://u:hunter2@h/db' -c 'select 1'"),
     ("sh", "-c", "psql 'postgresql://u:***@h/db' -c 'select 1'")),
    (("python", "-c", "connect(password='hunter2', host='h')"), ("python", "-c", "connect(password=***, host='h')")),
    (("a title with password=hunter2 in it",), ("a title with password=*** in it",)),
]
KEPT = [
    "psql -p 5432 -h db -U ada -d shop", "psql -p5432", "psql postgresql://ada@db:5432/shop?sslmode=verify-full",
    "python crew.py --no-password --host db", "x password_file=/etc/weir/p", "x https://host:443/path", "mysql -p",
    "x --max-rows 5", "x user=ada", "x compass north", "ssh -p 22 ada@host", "git git@github.com:o/r", "x ''", "",
    "mysql -h prod -P 3306 -D shop",
]


@pytest.mark.parametrize(("line", "wanted"), MASKED)
def test_a_secret_in_a_word(line: str, wanted: str) -> None:
    assert " ".join(mask_arguments(line.split(" "))) == wanted


@pytest.mark.parametrize(("words", "wanted"), MASKED_WORDS)
def test_a_secret_among_spaces(words: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert mask_arguments(words) == wanted


@pytest.mark.parametrize("line", KEPT)
def test_what_is_no_secret_is_kept(line: str) -> None:
    assert " ".join(mask_arguments(line.split(" "))) == line


def test_a_line_of_words_is_masked_too() -> None:
    """What sets its own title (or runs as one argument) is one text."""
    for line, wanted in MASKED:
        [found] = mask_arguments((line,))
        assert "hunter2" not in found, found
        assert found.split()[0] == wanted.split()[0]


def test_secrets_are_masked_before_anything_is_cut() -> None:
    line = b"psql\0" + b"postgresql://u:" + b"hunter2" * 1000 + b"@h/db\0"
    assert parse_argv(line) == ("psql", "postgresql://u:***@h/db")
    cut = (b"psql\0postgresql://u:" + b"hunter2" * 20_000)[:facts.CMDLINE]
    assert parse_argv(cut) == ("psql", "***")


HOSTILE = [
    "password", "pass", "token ", "password=", "password='", "\"password\":", "password\\", "--password ",
    "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "://", "a://b:c@", "a://:", "@", "@:", "bearer ", "authorization:",
    "'", "\\", '"',
    " ", "\t", "a", "-", "--no-", "-p", "mysql ", "1", "pass1", "?password=", "&token=", "=", ":", "sshpass -p ",
    " host", " ssla", "password\"'`", "api-", "\u00e4", "password  ",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("head", ["", "password=", "a://b:", "--x-token", "password ", "x "])
def test_work_is_bounded(head: str, piece: str) -> None:
    """As long as what is read of a command line: a pattern that runs over it again and again would not come back."""
    text = (head + piece * facts.CMDLINE)[:facts.CMDLINE]
    assert len(mask_arguments(("x", text))) == 2
    assert len(mask_arguments((text,))) == 1
    assert len(mask_arguments((text[:1000],) * facts.ARGUMENTS)) == facts.ARGUMENTS


@settings(deadline=None)
@given(st.lists(st.text(alphabet="pas:/@=-'\"\\ &?{}x", max_size=30), max_size=4))
def test_any_arguments_have_an_answer(arguments: list[str]) -> None:
    assert len(mask_arguments(arguments)) == len(arguments)


async def test_a_running_process_is_seen_without_its_secrets() -> None:
    arguments = ["/usr/bin/python3", "-c", "import sys; print(flush=True); sys.stdin.read()",
                 "postgresql://ada:hunter2@db/shop", "--token", "hunter2", "host=db password='hunter 2' user=ada"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()     # it runs, and its arguments are its own
        found = await facts.read_process(process.pid, time.clock_gettime_ns(time.CLOCK_MONOTONIC), facts.Hashes())
        process.communicate()
    assert found.argv[3:] == ("postgresql://ada:***@db/shop", "--token", "***", "host=db password=*** user=ada")
