"""psycopg2: simple protocol, COPY, server-side cursor, NOTIFY, large objects."""
from __future__ import annotations

import io
import json

import psycopg2
import psycopg2.errors

with psycopg2.connect("") as connection:
    cursor = connection.cursor()
    said: list[object] = []
    cursor.execute("SELECT id, name, price FROM products WHERE price > %s ORDER BY id", (3,))
    said.append([[a, b, str(c)] for a, b, c in cursor.fetchall()])
    cursor.executemany("INSERT INTO scratch (id, note) VALUES (%s, %s)", [(9000 + n, f"note {n}") for n in range(5)])
    cursor.execute("UPDATE scratch SET note = note || '!' WHERE id >= 9000 RETURNING id, note")
    said.append(sorted(cursor.fetchall()))
    connection.rollback()
    cursor.execute("SELECT count(*) FROM scratch WHERE id >= 9000")
    said.append(cursor.fetchone())
    try:
        cursor.execute("SELECT * FROM no_such_table")
    except psycopg2.errors.UndefinedTable as error:
        said.append([error.pgcode, str(error).splitlines()[0]])
    connection.rollback()
    with connection.cursor("named") as named:
        named.itersize = 7
        named.execute("SELECT id, status FROM orders ORDER BY id LIMIT 30")
        said.append([list(row) for row in named])
    connection.rollback()
    out = io.StringIO()
    cursor.copy_expert("COPY products (id, name) TO STDOUT", out)
    said.append(out.getvalue())
    cursor.copy_expert("COPY scratch (id, note) FROM STDIN", io.StringIO("9100\tcopied\n9101\t\\N\n"))
    cursor.execute("SELECT id, note FROM scratch WHERE id >= 9100 ORDER BY id")
    said.append(cursor.fetchall())
    connection.rollback()
    cursor.execute("LISTEN lab")
    cursor.execute("NOTIFY lab, 'hello'")
    connection.commit()
    connection.poll()
    said.append([[n.channel, n.payload] for n in connection.notifies])
    print(json.dumps(said))
