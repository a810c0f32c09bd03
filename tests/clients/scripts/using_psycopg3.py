"""psycopg 3: sync, async, pipeline, binary, COPY."""
from __future__ import annotations

import asyncio
import json

import psycopg

said: list[object] = []
with psycopg.connect("") as connection:
    said.append(connection.execute("SELECT id, name FROM products ORDER BY id").fetchall())
    for prepare in (None, True, True):
        counted = connection.execute("SELECT count(*) FROM orders WHERE quantity = %s", (2,), prepare=prepare)
        said.append(counted.fetchone())
    cursor = connection.cursor(binary=True)
    said.append([list(map(str, row)) for row in cursor.execute(
        "SELECT id, price, name FROM products WHERE id = ANY(%s) ORDER BY id", ([1, 3],), binary=True)])
    with connection.pipeline():
        results = [connection.execute("SELECT %s::int * 2", (n,)) for n in range(20)]
    said.append([r.fetchone() for r in results])
    try:
        with connection.pipeline():
            connection.execute("INSERT INTO scratch (id, note) VALUES (9200, 'lost')")
            connection.execute("SELECT * FROM no_such_table")
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        said.append(error.sqlstate)
    connection.rollback()
    with connection.cursor().copy("COPY scratch (id, note) FROM STDIN") as copy:
        for n in range(3):
            copy.write_row((9210 + n, f"row {n}"))
    with connection.cursor().copy("COPY (SELECT id, note FROM scratch WHERE id >= 9210 ORDER BY id) TO STDOUT") as copy:
        said.append(list(copy.rows()))
    connection.rollback()
    with connection.cursor(name="served") as served:
        served.execute("SELECT id FROM orders ORDER BY id LIMIT 10")
        said.append(served.fetchmany(3) + served.fetchall())
    with connection.transaction(), connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO scratch (id, note) VALUES (9220, 'in a savepoint')")
    said.append(connection.execute("SELECT count(*) FROM scratch WHERE id = 9220").fetchone())
    connection.rollback()


async def asynchronous() -> None:
    async with await psycopg.AsyncConnection.connect("") as connection:
        cursor = await connection.execute("SELECT sum(id) FROM products")
        said.append(await cursor.fetchone())


asyncio.run(asynchronous())
print(json.dumps(said))
