// pgx: statement cache (prepare and describe), batches, COPY, an error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	ctx := context.Background()
	connection, err := pgx.Connect(ctx, "")
	must(err)
	said := []any{}
	for _, quantity := range []int{1, 2} {
		var count int
		must(connection.QueryRow(ctx, "SELECT count(*) FROM orders WHERE quantity = $1", quantity).Scan(&count))
		said = append(said, count)
	}
	rows, err := connection.Query(ctx, "SELECT id, name FROM products ORDER BY id")
	must(err)
	names, err := pgx.CollectRows(rows, pgx.RowToMap)
	must(err)
	said = append(said, names)
	batch := &pgx.Batch{}
	for n := 0; n < 10; n++ {
		batch.Queue("SELECT $1::int + 1", n)
	}
	results := connection.SendBatch(ctx, batch)
	for n := 0; n < 10; n++ {
		var value int
		must(results.QueryRow().Scan(&value))
		said = append(said, value)
	}
	must(results.Close())
	tx, err := connection.Begin(ctx)
	must(err)
	copied, err := tx.CopyFrom(ctx, pgx.Identifier{"scratch"}, []string{"id", "note"},
		pgx.CopyFromRows([][]any{{9800, "a"}, {9801, "b"}}))
	must(err)
	said = append(said, copied)
	must(tx.Rollback(ctx))
	_, err = connection.Exec(ctx, "SELECT * FROM no_such_table")
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		said = append(said, refused.Code, refused.Message)
	}
	must(connection.Close(ctx))
	out, err := json.Marshal(said)
	must(err)
	fmt.Println(string(out))
}
