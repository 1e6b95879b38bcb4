package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// The round trip: a database is filled, dumped in each format, restored from each, and dumped again; the texts must be the
// same. Everything goes by the side under test, so that a byte lost in either direction shows.

const (
	dumped   = "conformance_dumped"
	restored = "conformance_restored"
)

// contents has what dumps get wrong: order of creation, quoting, odd text in COPY, values of many megabytes, large objects,
// a sequence's state, generated columns, partitions, privileges.
const contents = `
create role conformance_reader;
create type mood as enum ('calm', 'it''s "loud"', E'tab\there');
create domain positive as int check (value > 0);
create sequence counter start 41 increment 7;
select nextval('counter'), nextval('counter');
create table "odd Name; --" (id int primary key generated always as identity, t text, b bytea, j jsonb, a int[][], n numeric, f float8,
	at timestamptz default '2020-02-29 12:00+00', m mood, p positive, double int generated always as (p * 2) stored);
insert into "odd Name; --" (t, b, j, a, n, f, m, p) values
	(E'back\\slash \\. and\ttab and\nnewline and \u00e9\u4e2d\U0001F600', '\x00ff0a5c2e', '{"a": [1, null, "x\"y"]}', '{{1,2},{3,4}}', 1e100, 'NaN', 'calm', 1),
	('', '', null, '{}', '-Infinity', '-Infinity', E'tab\there', 2), ('\N', null, 'null', null, null, '1e-300', null, null), ('\.', '\x5c2e', '"\\."', null, 0.10, 0.1, 'it''s "loud"', 3);
create table big (id int, v text, b bytea);
insert into big select i, repeat(md5(i::text), 250000), decode(repeat(md5(i::text), 100000), 'hex') from generate_series(1, 4) i;
create table many as select i, md5(i::text) as t, i::numeric / 7 as n from generate_series(1, 20000) i;
create unique index on many (i);
create table parts (k int, v text) partition by list (k);
create table parts_1 partition of parts for values in (1);
create table parts_rest partition of parts default;
insert into parts values (1, 'one'), (2, 'two');
create view seen as select m.i, o.t from many m join "odd Name; --" o on o.id = m.i;
create materialized view counted as select count(*) from many;
create function twice(int) returns int language sql as $$ select $1 * 2 -- ' and $other$ $$;
create function touch() returns trigger language plpgsql as $f$ begin raise notice 'touched %', new; return new; end $f$;
create trigger touched before insert on parts for each row execute function touch();
alter table many add constraint positive check (twice(i) > 0);
grant select on many to conformance_reader;
comment on table many is E'a comment\nof two lines';
`

func runDump(ctx context.Context, b *bench, s *side) ([]result, error) {
	d := dumper{bench: b, side: s, ctx: ctx}
	var results []result
	// Each step needs the ones before it, so the first that fails ends the list; what then has no result counts as missing.
	for _, step := range []struct {
		test string
		do   func() error
	}{
		{"fill", d.fill},
		{"large-objects", d.largeObjects},
		{"copy", d.copy},
		{"dump", d.dump},
		{"plain", d.plain},
		{"custom", func() error { return d.restore("custom", "-Fc") }},
		{"tar", func() error { return d.restore("tar", "-Ft") }},
		{"directory", func() error { return d.restore("directory", "-Fd") }},
		{"directory-4-jobs", func() error { return d.restore("directory-4-jobs", "-Fd", "-j", "4") }},
		{"inserts", func() error { return d.restore("inserts", "-Fc", "--inserts") }},
		{"restore-with-create", d.restoreCreate},
		{"single-transaction", d.singleTransaction},
		{"dumpall", d.dumpall},
		{"same-as-direct", d.sameAsDirect},
	} {
		err := step.do()
		results = append(results, verdict(step.test, err))
		if err != nil && (step.test == "fill" || step.test == "dump") {
			break
		}
	}
	for _, r := range results {
		if r.outcome != passed {
			return results, nil // the files are what one looks at
		}
	}
	return results, d.tidy()
}

// tidy removes what the steps wrote, which is large, and leaves the log.
func (d *dumper) tidy() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "log" {
			continue
		}
		if err := os.RemoveAll(d.file(entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

type dumper struct {
	*bench
	*side
	ctx   context.Context
	first string // the dump that all others are compared with
}

func (d *dumper) file(name string) string { return filepath.Join(d.dir, name) }

func (d *dumper) run(database string, args ...string) (string, error) {
	return d.do(d.ctx, d.side, command{as: d.superuser.with("dbname", database), log: "log", args: args})
}

func (d *dumper) psql(database string, args ...string) (string, error) {
	return d.run(database, append([]string{"psql", "-XAtq", "-v", "ON_ERROR_STOP=1"}, args...)...)
}

func (d *dumper) fill() error {
	if _, err := d.psql(d.superuser["dbname"], "-c", "create database "+dumped+" template template0"); err != nil {
		return err
	}
	_, err := d.do(d.ctx, d.side, command{as: d.superuser.with("dbname", dumped), log: "log", stdin: contents, args: []string{"psql", "-Xq", "-v", "ON_ERROR_STOP=1"}})
	return err
}

// largeObjects stores a file of three megabytes by the function-call messages that \lo_import uses and takes it back.
func (d *dumper) largeObjects() error {
	content := make([]byte, 0, 3<<20)
	for sum := sha256.Sum256(nil); len(content) < 3<<20; sum = sha256.Sum256(sum[:]) {
		content = append(content, sum[:]...)
	}
	if err := os.WriteFile(d.file("lo.in"), content, 0o644); err != nil {
		return err
	}
	script := fmt.Sprintf("\\lo_import %s 'a comment'\n\\lo_export :LASTOID %s\ncreate table objects as select :LASTOID::oid as object;\nselect lo_from_bytea(0, '');\n",
		d.file("lo.in"), d.file("lo.out"))
	if _, err := d.do(d.ctx, d.side, command{as: d.superuser.with("dbname", dumped), log: "log", stdin: script, args: []string{"psql", "-Xq", "-v", "ON_ERROR_STOP=1"}}); err != nil {
		return err
	}
	return sameFiles(d.file("lo.in"), d.file("lo.out"))
}

// copy moves a table out and in by \copy, as text, CSV and binary.
func (d *dumper) copy() error {
	for _, format := range []string{"text", "csv", "binary"} {
		out, again := d.file("copy-1."+format), d.file("copy-2."+format)
		if _, err := d.psql(dumped, "-c", `\copy (select id, v, b from big union all select i, t, null from many order by 1, 2) to `+out+` (format `+format+`)`,
			"-c", "create table copied (like big)", "-c", `\copy copied from `+out+` (format `+format+`)`,
			"-c", `\copy (select * from copied order by 1, 2) to `+again+` (format `+format+`)`, "-c", "drop table copied"); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
		if err := sameFiles(out, again); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
	return nil
}

func (d *dumper) dump() (err error) {
	d.first, err = d.text(dumped, "first")
	return err
}

// text dumps a database as SQL and gives it without what differs by design: the key that \restrict draws at random.
func (d *dumper) text(database, name string) (string, error) {
	file := d.file(name + ".sql")
	if _, err := d.run(database, "pg_dump", "-f", file); err != nil {
		return "", err
	}
	return comparable(file)
}

var restrict = regexp.MustCompile(`(?m)^\\(un)?restrict .*\n`)

func comparable(file string) (string, error) {
	content, err := os.ReadFile(file)
	return string(restrict.ReplaceAll(content, nil)), err
}

func (d *dumper) empty() error {
	_, err := d.psql(d.superuser["dbname"], "-c", "drop database if exists "+restored+" with (force)", "-c", "create database "+restored+" template template0")
	return err
}

func (d *dumper) check(name string) error {
	again, err := d.text(restored, name)
	if err != nil {
		return err
	}
	if again != d.first {
		return fmt.Errorf("the restored database dumps otherwise: %s against %s", d.file(name+".sql"), d.file("first.sql"))
	}
	return nil
}

func (d *dumper) plain() error {
	if err := d.empty(); err != nil {
		return err
	}
	if _, err := d.psql(restored, "-f", d.file("first.sql")); err != nil {
		return err
	}
	return d.check("plain")
}

func (d *dumper) restore(name string, options ...string) error {
	if err := d.empty(); err != nil {
		return err
	}
	archive := d.file(name + ".archive")
	if _, err := d.run(dumped, append([]string{"pg_dump", "-f", archive}, options...)...); err != nil {
		return err
	}
	restore := []string{"pg_restore", "-e", "-d", restored}
	if strings.Contains(name, "jobs") {
		restore = append(restore, "-j", "4")
	}
	if _, err := d.run(restored, append(restore, archive)...); err != nil {
		return err
	}
	return d.check(name)
}

// restoreCreate lets pg_restore make the database itself, as it stood, under its old name.
func (d *dumper) restoreCreate() error {
	if _, err := d.run(dumped, "pg_dump", "-Fc", "-f", d.file("create.archive")); err != nil {
		return err
	}
	if _, err := d.psql(d.superuser["dbname"], "-c", "drop database "+dumped); err != nil {
		return err
	}
	if _, err := d.run(d.superuser["dbname"], "pg_restore", "-C", "-e", "-d", d.superuser["dbname"], d.file("create.archive")); err != nil {
		return err
	}
	again, err := d.text(dumped, "created")
	if err == nil && again != d.first {
		err = fmt.Errorf("the created database dumps otherwise: %s", d.file("created.sql"))
	}
	return err
}

func (d *dumper) singleTransaction() error {
	if err := d.empty(); err != nil {
		return err
	}
	if _, err := d.run(restored, "pg_restore", "--single-transaction", "-d", restored, d.file("custom.archive")); err != nil {
		return err
	}
	return d.check("single-transaction")
}

// dumpall dumps the whole cluster and finds this test's databases and role in it.
func (d *dumper) dumpall() error {
	if _, err := d.run(d.superuser["dbname"], "pg_dumpall", "-f", d.file("all.sql"), "--no-role-passwords"); err != nil {
		return err
	}
	all, err := comparable(d.file("all.sql"))
	if err != nil {
		return err
	}
	for _, part := range []string{"CREATE ROLE conformance_reader;", "CREATE DATABASE " + dumped, "-- PostgreSQL database cluster dump complete"} {
		if !strings.Contains(all, part) {
			return fmt.Errorf("%s has no %q", d.file("all.sql"), part)
		}
	}
	return nil
}

// sameAsDirect dumps the one database both ways: the texts must be the same to the byte.
func (d *dumper) sameAsDirect() error {
	straight := dumper{bench: d.bench, side: &side{name: "direct", superuser: d.direct.superuser, dir: d.dir}, ctx: d.ctx}
	want, err := straight.text(dumped, "straight")
	if err != nil {
		return err
	}
	got, err := d.text(dumped, "compared")
	if err == nil && got != want {
		err = fmt.Errorf("%s and %s differ", d.file("compared.sql"), d.file("straight.sql"))
	}
	return err
}

func sameFiles(one, other string) error {
	a, err := os.ReadFile(one)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(other)
	if err != nil {
		return err
	}
	if len(a) == 0 || !bytes.Equal(a, b) {
		return fmt.Errorf("%s (%d bytes) and %s (%d bytes) differ", one, len(a), other, len(b))
	}
	return nil
}
