package guard

import (
	"errors"
	"strings"
	"testing"

	"sallyport/configs"
)

func TestCheck(t *testing.T) {
	all := New(configs.Guardrails)
	for sql, class := range map[string]string{
		"select 1":                         "",
		"":                                 "",
		"-- nothing":                       "",
		"update t set a = 1 where b = 2":   "",
		"delete from t where a = 1":        "",
		"insert into t values (1)":         "",
		"copy t from stdin":                "",
		"begin; select 1; commit":          "",
		"create temporary table x (a int)": "",
		"create temp table x as select 1":  "",
		"set search_path = a":              "",
		"select set_config('search_path', 'x', false)": "",
		"discard all": "",

		"drop table t":               "drop",
		"select 1; drop table t":     "drop",
		"drop database d":            "drop",
		"drop owned by x":            "drop",
		"truncate t":                 "truncate",
		"update t set a = 1":         "update-without-where",
		"delete from t":              "delete-without-where",
		"delete from t using u":      "delete-without-where",
		"create table t (a int)":     "ddl",
		"create table t as select 1": "ddl",
		"select 1 into t":            "ddl",
		"alter table t add b int":    "ddl",
		"alter table t rename to u":  "ddl",
		"create index on t (a)":      "ddl",
		"create view v as select 1":  "ddl",
		"create function f() returns int language sql as 'select 1'": "ddl",
		"grant select on t to u":                                     "ddl",
		"comment on table t is 'x'":                                  "ddl",
		"create type c as (a int)":                                   "ddl",
		"create type e as enum ('a')":                                "ddl",
		"create trigger x after insert on t execute function f()":    "ddl",
		"copy t to program 'sh'":                                     "copy-program",
		"copy t from program 'sh'":                                   "copy-program",
		"set role postgres":                                          "roles",
		"SET LOCAL ROLE postgres":                                    "roles",
		"reset role":                                                 "roles",
		"set session authorization x":                                "roles",
		"create role r":                                              "roles",
		"create user r":                                              "roles",
		"alter user r password 'x'":                                  "roles",
		"alter role r set search_path = x":                           "roles",
		"grant a to b":                                               "roles",
		"select set_config('role', 'x', false)":                      "roles",

		// Inside of others.
		"with d as (delete from t returning *) select * from d":                             "delete-without-where",
		"explain analyze delete from t":                                                     "delete-without-where",
		"copy (delete from t returning *) to stdout":                                        "delete-without-where",
		"prepare p as update t set a = 1":                                                   "update-without-where",
		"create temp table x as with d as (update t set a = 1 returning a) select * from d": "update-without-where",
		"/* drop */ DR/**/OP table t":                                                       Unreadable,
		"dr\u00f6p table t":                                                                 Unreadable,

		// What can't be looked into.
		"do $$ begin execute 'drop table t'; end $$": Unreadable,
		"drop tabel t": Unreadable,
		"select set_config(x, 'y', false) from t":        Unreadable,
		"set client_encoding = 'SJIS'":                   Unreadable,
		"set names 'SJIS'":                               Unreadable,
		"set standard_conforming_strings = off":          Unreadable,
		"select '\xff'":                                  Unreadable,
		"select '" + strings.Repeat("x", TextMost) + "'": Unreadable,
	} {
		err := all.Check([]byte(sql))
		r, _ := errors.AsType[*Refusal](err)
		switch {
		case class == "" && err != nil:
			t.Errorf("%.60q: %v", sql, err)
		case class != "" && (r == nil || r.Class != class):
			t.Errorf("%.60q: %v, and should be refused as %s", sql, err, class)
		}
		if class != "" && class != Unreadable {
			if err := New([]string{"truncate"}).Check([]byte(sql)); class != "truncate" && err != nil {
				t.Errorf("%.60q, with another guardrail: %v", sql, err)
			}
		}
	}
	if New(nil) != nil {
		t.Error("a guard without classes")
	}
}

// FuzzCheck: whatever is asked, there is an answer.
func FuzzCheck(f *testing.F) {
	g := New(configs.Guardrails)
	for _, sql := range []string{"select 1", "drop table t", "with a as (delete from t) select 1", "do $$x$$", "\xff", "select '\x00'"} {
		f.Add([]byte(sql))
	}
	f.Fuzz(func(_ *testing.T, sql []byte) { _ = g.Check(sql) })
}
