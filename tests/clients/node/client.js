// node-postgres: simple, parameters, prepared, error, cursor-like reading.
const { Client } = require('pg')
const fs = require('fs')

async function main () {
  const ssl = process.env.PGSSLMODE === 'verify-full'
    ? { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: process.env.PGHOST } : false
  const client = new Client({ ssl })
  await client.connect()
  const said = []
  said.push((await client.query('SELECT id, name FROM products ORDER BY id')).rows)
  said.push((await client.query('SELECT count(*) FROM orders WHERE quantity = $1', [2])).rows)
  for (const id of [1, 2]) {
    said.push((await client.query({ name: 'one', text: 'SELECT name FROM products WHERE id = $1', values: [id] })).rows)
  }
  await client.query('BEGIN')
  await client.query("INSERT INTO scratch (id, note) VALUES (9700, 'x')")
  await client.query('ROLLBACK')
  try { await client.query('SELECT * FROM no_such_table') } catch (error) { said.push([error.code, error.message]) }
  said.push((await client.query('SELECT 1 AS a; SELECT 2 AS b')).map(result => result.rows))
  await client.end()
  console.log(JSON.stringify(said))
}
main().catch(error => { console.error(error); process.exit(1) })
