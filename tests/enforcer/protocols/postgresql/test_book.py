"""What is recorded of texts, parameters, rows and errors lies under the digest that the event names."""
from __future__ import annotations

import pytest
from pump import SYNC, bind, describe, execute, parse, query, render
from scripted import Scripted, row

from enforcer.hot.chain import make_digest
from enforcer.words import events

ROWS = render(b"T", b"\0\1id\0" + b"\0" * 6 + b"\0\0\0\x17\0\4\xff\xff\xff\xff\0\0")
DELIVERED = b"".join(row(b"%d" % number) for number in range(100, 120))
READY = render(b"Z", b"I")


@pytest.mark.parametrize(("limit", "kept"), [(1 << 20, len(DELIVERED)), (len(DELIVERED), len(DELIVERED)), (50, 50)])
def test_rows_whole_and_cut(limit: int, kept: int) -> None:
    session = Scripted(payload="rows", payload_limit=limit)
    session.records.clear()
    session.send(parse("SELECT id FROM t WHERE id > $1") + bind("7") + describe("P") + execute() + SYNC)
    session.hear(render(b"1") + render(b"2") + ROWS + DELIVERED + render(b"C", b"SELECT 20\0") + READY)
    session.send(query("SELECT id FROM t"))
    session.hear(render(b"E", b"SERROR\0C22012\0Mdivision by zero\0\0") + READY)
    contents = {}
    for record in session.records:
        for digest, salt, content in record.blobs:
            assert digest == make_digest(salt, content)
            contents[digest] = content
    intent = session.events(events.Intent)[0]
    assert contents[intent.text] == b"SELECT id FROM t WHERE id > $1"
    assert b"7" in contents[intent.parameters]
    result, failed = session.events(events.Result)[-2:]
    assert contents[result.payload[0]] == DELIVERED[:kept]
    assert result.response == make_digest(result.salt, DELIVERED)
    assert (result.rows, result.bytes) == (20, len(DELIVERED))
    assert (failed.payload, contents[failed.error]) == ((), b"division by zero")
