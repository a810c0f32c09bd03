"""SQLAlchemy over psycopg2: reflection, Core, a transaction that is rolled back."""
from __future__ import annotations

import json

from sqlalchemy import MetaData, Table, create_engine, func, inspect, select, text

engine = create_engine("postgresql+psycopg2://")
said: list[object] = []
looked = inspect(engine)
said.append(sorted(looked.get_table_names()))
said.append([[c["name"], str(c["type"])] for c in looked.get_columns("orders")])
said.append(looked.get_foreign_keys("orders")[0]["referred_table"])
said.append(looked.get_pk_constraint("products")["constrained_columns"])
products = Table("products", MetaData(), autoload_with=engine)
with engine.connect() as connection:
    said.append([[row.id, row.name] for row in connection.execute(select(products).order_by(products.c.id))])
    said.append(connection.execute(select(func.count()).select_from(products)).scalar())
    connection.execute(text("INSERT INTO scratch (id, note) VALUES (9600, 'x')"))
    connection.rollback()
    said.append(connection.execute(text("SELECT count(*) FROM scratch WHERE id = 9600")).scalar())
print(json.dumps(said))
