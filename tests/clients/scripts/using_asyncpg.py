"""asyncpg: binary, prepared statements, portals by cursor, COPY, executemany, type loading."""
from __future__ import annotations

import asyncio
import json

import asyncpg


async def main() -> None:
    said: list[object] = []
    connection = await asyncpg.connect()
    said.append([list(map(str, row)) for row in await connection.fetch("SELECT * FROM products WHERE id > $1", 1)])
    statement = await connection.prepare(
        "SELECT id, status, ordered_at FROM orders WHERE id = ANY($1::int[]) ORDER BY id")
    for chosen in ([1, 2], [3]):
        said.append([list(map(str, row)) for row in await statement.fetch(chosen)])
    async with connection.transaction():
        cursor = connection.cursor("SELECT id FROM orders ORDER BY id LIMIT 25", prefetch=10)
        said.append([row["id"] async for row in cursor])
    transaction = connection.transaction()
    await transaction.start()
    await connection.executemany("INSERT INTO scratch (id, note) VALUES ($1, $2)", [(9300 + n, "x") for n in range(50)])
    await connection.copy_records_to_table("scratch", records=[(9400, "copied")], columns=["id", "note"])
    said.append(await connection.fetchval("SELECT count(*) FROM scratch WHERE id >= 9300"))
    await transaction.rollback()
    try:
        await connection.fetch("SELECT * FROM no_such_table")
    except asyncpg.UndefinedTableError as error:
        said.append([error.sqlstate, str(error)])
    said.append(await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM products"))
    await connection.close()
    print(json.dumps(said))


asyncio.run(main())
