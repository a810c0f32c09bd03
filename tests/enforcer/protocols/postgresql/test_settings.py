"""Settings: what may be given at startup, what is pinned, what has no meaning for later texts."""
from __future__ import annotations

import pytest

from enforcer.protocols.postgresql import settings

# name, value, whether it may be given at startup
STARTUP = [
    ("application_name", "psql", True), ("DateStyle", "ISO", True), ("search_path", "other", True),
    ("client_encoding", "UTF8", True), ("client_encoding", "'utf-8'", True), ("client_encoding", "UNICODE", True),
    ("client_encoding", "LATIN1", False), ("CLIENT_ENCODING", "SQL_ASCII", False), ("client_encoding", "UTF8 ", True),
    ("standard_conforming_strings", "on", True), ("standard_conforming_strings", "off", False),
    ("Standard_Conforming_Strings", "0", False), ("standard_conforming_strings", "", False),
    ("role", "admin", False), ("session_authorization", "x", False), ("session_replication_role", "replica", False),
    ("local_preload_libraries", "x", False), ("replication", "true", False), ("backslash_quote", "on", False),
    ("default_transaction_read_only", "on", True), ("", "", False), ("my.setting", "x", False),
    # -c name=value in each of its spellings: documentation 20.1.4, postgres(1)
    ("options", "", True), ("options", "-c statement_timeout=5", True), ("options", "-cstatement_timeout=5", True),
    ("options", "--statement-timeout=5", True), ("options", "--statement_timeout=5", True),
    ("options", " -c  geqo=off   --jit=off ", True), ("options", "-c search_path=a,\\ b", True),
    ("options", "-c role=admin", False), ("options", "--role=admin", False), ("options", "-crole=admin", False),
    ("options", "-c geqo=off -c role=admin", False), ("options", "-c client_encoding=LATIN1", False),
    ("options", "--client-encoding=LATIN1", False), ("options", "-c standard_conforming_strings=off", False),
    ("options", "-c client-encoding=LATIN1", False), ("options", "-c CLIENT_ENCODING=LATIN1", False),
    ("options", "-c stand\\ard_conforming_strings=off", False), ("options", "-c", False), ("options", "-c x", False),
    ("options", "-c geqo", False), ("options", "-W 5", False), ("options", "-f x", False), ("options", "-O", False),
    ("options", "-e", False), ("options", "-ts", False), ("options", "-v 3", False), ("options", "x", False),
    ("options", "-c geqo=off\\ -c\\ role=admin", True),          # one value, as the server reads it: refused there
    ("options", "-c options=-crole=admin", False), ("options", "-c\tgeqo=off\n-c\vjit=off", True),
    ("options", "-c geqo=off -c", False), ("options", "-- geqo=off", False), ("options", "-c =x", False),
    ("options", "-c options=", False),
]


@pytest.mark.parametrize(("name", "value", "may"), STARTUP)
def test_startup(name: str, value: str, may: bool) -> None:
    reason = settings.permitted(name, value)
    assert (reason == "") == may, reason


def test_a_reason_names_the_setting() -> None:
    assert "role" in settings.permitted("options", "-c role=admin")
    assert "UTF8" in settings.permitted("client_encoding", "LATIN1")


def test_what_gives_names_their_meaning() -> None:
    for name in ("search_path", "ROLE", "session_authorization", "session_replication_role", "plan", "all"):
        assert settings.has_meaning(name), name
    for name in ("statement_timeout", "DateStyle", "application_name", "app.user", "client_encoding"):
        assert not settings.has_meaning(name), name
