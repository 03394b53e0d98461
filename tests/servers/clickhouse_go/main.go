// Asks a ClickHouse as Grafana's plug-in does, through the same library and with the same options, and tells what it
// got: each line of JSON on stdin holds a statement, and is answered by one on stdout with columns, types and rows, or
// an error. The line before all others says how connecting went.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// The plug-in's default for the first, and what our data source sets for the second: the library makes of each deadline
// a max_execution_time that is 5 s longer, and the role's ceiling is 30 s.
const (
	dialTimeout  = 10 * time.Second
	queryTimeout = 25 * time.Second
)

type ask struct {
	SQL string `json:"sql"`
}

type told struct {
	Names []string `json:"names"`
	Types []string `json:"types"`
	Rows  [][]any  `json:"rows"`
	Error string   `json:"error"`
	Code  int32    `json:"code"`
}

// As the plug-in connects in its HTTP mode: gzip, a user, a database; no settings unless people add some.
func open(address, user, password, database string) *sql.DB {
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{address},
		Auth:        clickhouse.Auth{Database: database, Username: user, Password: password},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
		DialTimeout: dialTimeout,
		ReadTimeout: queryTimeout,
		Protocol:    clickhouse.HTTP,
		Settings:    clickhouse.Settings{},
		ClientInfo: clickhouse.ClientInfo{Products: []struct{ Name, Version string }{
			{Name: "grafana", Version: "11.6.0"}, {Name: "clickhouse-datasource", Version: "4.14.0"},
		}},
	})
	db.SetMaxIdleConns(25)
	db.SetMaxOpenConns(50)
	return db
}

func answer(db *sql.DB, statement string) told {
	// The plug-in hands each query over with who asks, as a comment in the client's name.
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	ctx = clickhouse.Context(ctx, clickhouse.WithClientInfo(clickhouse.ClientInfo{
		Comment: []string{"grafana_dashboard:kvandal-site"},
	}))
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return failed(err)
	}
	defer rows.Close()
	kinds, err := rows.ColumnTypes()
	if err != nil {
		return failed(err)
	}
	given := told{Names: []string{}, Types: []string{}, Rows: [][]any{}}
	for _, kind := range kinds {
		given.Names = append(given.Names, kind.Name())
		given.Types = append(given.Types, kind.DatabaseTypeName())
	}
	for rows.Next() {
		values := make([]any, len(kinds))
		places := make([]any, len(kinds))
		for place := range values {
			places[place] = &values[place]
		}
		if err := rows.Scan(places...); err != nil {
			return failed(err)
		}
		given.Rows = append(given.Rows, shown(values))
	}
	if err := rows.Err(); err != nil {
		return failed(err)
	}
	return given
}

// JSON has neither times nor numbers that are none: times become RFC 3339 in UTC, the rest text.
func shown(values []any) []any {
	for place, value := range values {
		if at, ok := value.(time.Time); ok {
			values[place] = at.UTC().Format(time.RFC3339Nano)
		}
		if _, err := json.Marshal(values[place]); err != nil {
			values[place] = fmt.Sprint(value)
		}
	}
	return values
}

func failed(err error) told {
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return told{Error: err.Error(), Code: exception.Code}
	}
	return told{Error: err.Error()}
}

func main() {
	address := flag.String("address", "", "host and port")
	user := flag.String("user", "grafana", "")
	database := flag.String("database", "kvandal", "")
	flag.Parse()
	db := open(*address, *user, os.Getenv("STORE_PASSWORD"), *database)
	defer db.Close()
	out := json.NewEncoder(os.Stdout)
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var first told
	if err := db.PingContext(ctx); err != nil {
		first = failed(err)
	}
	out.Encode(first)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20) // the longest statement of a panel has some 20 kB
	for lines.Scan() {
		var next ask
		if err := json.Unmarshal(lines.Bytes(), &next); err != nil {
			out.Encode(told{Error: err.Error()})
			continue
		}
		out.Encode(answer(db, next.SQL))
	}
}
