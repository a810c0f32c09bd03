"""pg8000: extended protocol with an unnamed statement each time."""
from __future__ import annotations

import json
import os
import ssl

import pg8000.native

context: object = None
if os.environ.get("PGSSLMODE", "prefer") not in ("disable", "prefer"):
    context = ssl.create_default_context(cafile=os.environ.get("PGSSLROOTCERT"))
said: list[object] = []
connection = pg8000.native.Connection(
    os.environ["PGUSER"], host=os.environ["PGHOST"], database=os.environ["PGDATABASE"],
    password=os.environ.get("PGPASSWORD"), ssl_context=context,
)
said.append(connection.run("SELECT id, name FROM products WHERE id < :most ORDER BY id", most=3))
connection.run("START TRANSACTION")
connection.run("INSERT INTO scratch (id, note) VALUES (:id, :note)", id=9500, note="x")
said.append(connection.run("SELECT note FROM scratch WHERE id = 9500"))
connection.run("ROLLBACK")
try:
    connection.run("SELECT * FROM no_such_table")
except pg8000.exceptions.DatabaseError as error:
    said.append([error.args[0]["C"], error.args[0]["M"]])
prepared = connection.prepare("SELECT count(*) FROM orders WHERE quantity = :q")
said.append([prepared.run(q=n) for n in range(4)])
connection.close()
print(json.dumps(said))
