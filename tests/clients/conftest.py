"""One Weir without labels for all clients, and pgbench's tables beside the shop's."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.lab import Lab
from lab.weir import Installed, weir

PGBENCH = """
SET ROLE crew_svc;
CREATE TABLE IF NOT EXISTS pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE IF NOT EXISTS pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE IF NOT EXISTS pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE IF NOT EXISTS pgbench_history (
  tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches VALUES (1, 0, '') ON CONFLICT DO NOTHING;
INSERT INTO pgbench_tellers SELECT n, 1, 0, '' FROM generate_series(1, 10) AS n ON CONFLICT DO NOTHING;
INSERT INTO pgbench_accounts SELECT n, 1, 0, '' FROM generate_series(1, 100000) AS n ON CONFLICT DO NOTHING;
"""


@pytest.fixture(scope="module")
def plain_weir(the_lab: Lab) -> Iterator[Installed]:
    the_lab.database.admin(PGBENCH)
    with weir(the_lab) as installed:
        yield installed


@pytest.fixture
def plain(plain_weir: Installed) -> Iterator[Installed]:
    with plain_weir.overseen():
        yield plain_weir
