package item_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

var update = flag.Bool("update", false, "write docs/items.schema.json")

const (
	prefix = "#/$defs/"
	path   = "../../docs/items.schema.json"
)

// describe is the JSON schema of an Item, with its parts.
func describe(t *testing.T) (huma.Registry, *huma.Schema, []byte) {
	t.Helper()
	registry := huma.NewMapRegistry(prefix, huma.DefaultSchemaNamer)
	schema := registry.Schema(reflect.TypeFor[item.Item](), true, "Item")
	open(registry.Map())
	document := map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "A line of Sallyport's JSON Lines export",
		"description": "One thing that happened in a session. Fields are added over time, never renamed and never given another meaning.",
		"$ref":        schema.Ref,
		"$defs":       registry.Map(),
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		t.Fatal(err)
	}
	return registry, schema, out.Bytes()
}

// open lets objects have fields that this version does not know yet.
func open(schemas map[string]*huma.Schema) {
	for _, s := range schemas {
		s.AdditionalProperties = nil
	}
}

// The published schema is the one of the type. After a change: go test ./recorder/item -update
func TestThePublishedSchemaIsTheTypes(t *testing.T) {
	_, _, want := describe(t)
	if *update {
		if err := os.WriteFile(filepath.FromSlash(path), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale; write it with: go test ./recorder/item -update", path)
	}
}

// What is exported is what the schema says, and what is not is told.
func TestItemsFollowTheSchema(t *testing.T) {
	registry, schema, _ := describe(t)
	rows, status := int64(0), 1
	for name, it := range map[string]item.Item{
		"the least": {Session: "s-1", Number: 1, Kind: item.Note},
		"all": {
			Session: "s-1", Number: 2, At: time.Second, Time: time.Now(), Kind: item.Statement, Channel: 1, Ref: 1, SQL: "SELECT $1",
			Params: []item.Param{{Text: "x"}, {Null: true}, {Binary: []byte{0}}}, Via: "execute", Rows: &rows, Tag: "SELECT 0", SQLState: "42601",
			Error: "e", Duration: time.Second, Command: "c", Path: "/p", Stream: "stdout", Data: []byte{1, 2}, Text: "t", Bytes: 3, SHA256: "00",
			Columns: 80, Lines: 24, Terminal: "xterm", ExitStatus: &status, Signal: "TERM", Fields: map[string]string{"a": "b"},
			Header: &format.Header{Session: "s-1", Until: time.Now(), Approvers: []string{"bob"}, Identity: format.Party{Groups: []string{"g"}}}, Reason: "r",
		},
	} {
		data, err := json.Marshal(it)
		if err != nil {
			t.Fatal(err)
		}
		for change, good := range map[string]bool{"": true, "sql": false, "number": false} {
			var value map[string]any
			if err := json.Unmarshal(data, &value); err != nil {
				t.Fatal(err)
			}
			switch change {
			case "sql":
				value["sql"] = 7.0
			case "number":
				delete(value, "number")
			}
			result := &huma.ValidateResult{}
			huma.Validate(registry, schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, value, result)
			if ok := len(result.Errors) == 0; ok != good {
				t.Errorf("%s, changed %q: %v", name, change, result.Errors)
			}
		}
	}
}
