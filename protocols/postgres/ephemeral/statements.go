package ephemeral

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/xdg-go/scram"
)

// This file holds what is said to servers to make a role. Utility statements take no parameters, so names and texts are quoted here.

// The SQLSTATEs that are looked for.
const (
	stateUndefinedObject  = "42704" // no such role
	stateLockNotAvailable = "55P03" // lock_timeout is over
)

// sqlState is the server's code for an error; empty: it is none of a server's.
func sqlState(err error) string {
	if coded, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return coded.SQLState()
	}
	return ""
}

// identifier writes a name so that it means just that.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal writes a text so that it means just that, whatever standard_conforming_strings is.
func literal(text string) string {
	quoted := strings.ReplaceAll(text, `'`, `''`)
	if strings.Contains(quoted, `\`) {
		return ` E'` + strings.ReplaceAll(quoted, `\`, `\\`) + `'`
	}
	return `'` + quoted + `'`
}

// iterations is PostgreSQL's own default.
const iterations = 4096

// newPassword makes a password of 256 bits and what a server keeps of it (pg_authid.rolpassword), so that the password itself is
// in no statement that a server may log.
func newPassword() (password, verifier string, err error) {
	var random [32 + 16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", "", err
	}
	password = base64.RawURLEncoding.EncodeToString(random[:32])
	salt := random[32:]
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return "", "", fmt.Errorf("make a password: %w", err)
	}
	keys, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return "", "", fmt.Errorf("make a password: %w", err)
	}
	encode := base64.StdEncoding.EncodeToString
	return password, fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, encode(salt), encode(keys.StoredKey), encode(keys.ServerKey)), nil
}

// patient bounds what a statement may wait: a server that hangs must not hold up the roles behind it. Names are only looked for in the
// catalogue, whatever became of the settings at the start (a pooler may drop them): who may create a function or an operator in another
// schema must not have the one who makes roles run it.
const patient = "set search_path = pg_catalog; set lock_timeout = '2s'; set statement_timeout = '5s'"

// begin opens a transaction that has the role for itself: nobody else makes or drops it meanwhile, also not a connection that was
// given up here and is still at it there.
func begin(c Conn, name string) error {
	sum := sha256.Sum256([]byte("sallyport role " + name))
	key := binary.BigEndian.Uint64(sum[:])
	lock := fmt.Sprintf("select pg_advisory_xact_lock(%d)", int64(key))
	for _, sql := range []string{patient, "begin"} {
		if _, err := c.Query(sql); err != nil {
			return err
		}
	}
	_, err := c.Query(lock)
	if sqlState(err) != stateLockNotAvailable {
		return err
	}
	for _, sql := range []string{"rollback", usurpers(key), "begin", lock} {
		if _, err := c.Query(sql); err != nil {
			return err
		}
	}
	return nil
}

// usurpers ends the sessions that hold an advisory lock of this room's, or wait for it, as another account than the one that makes
// roles. PostgreSQL lets everybody take any, and a role's name, out of which the key is made, is known to all: whoever takes it
// keeps others from logging in, and roles from being dropped.
func usurpers(key uint64) string {
	return fmt.Sprintf(`select pg_terminate_backend(l.pid) from pg_locks l join pg_stat_activity a on a.pid = l.pid join pg_roles r on r.oid = a.usesysid
where l.locktype = 'advisory' and l.classid = %d and l.objid = %d and l.objsubid = 1 and l.database = (select oid from pg_database where datname = current_database())
and r.rolname <> current_user and not r.rolsuper`, key>>32, key&math.MaxUint32)
}

// makeRole makes the role, or has it as if it were new: with a new password and end, without settings of its own, and a member of what
// its account names now.
func makeRole(c Conn, name, verifier string, until time.Time, w Wanted) (outcome string, err error) {
	if err := begin(c, name); err != nil {
		return "", err
	}
	there, err := exists(c, name)
	if err != nil {
		return "", err
	}
	verb, outcome := "create role", "made"
	if there {
		verb, outcome = "alter role", "given a new password"
	}
	role := identifier(name)
	say := []string{fmt.Sprintf("%s %s login nosuperuser nocreaterole nocreatedb noreplication nobypassrls inherit connection limit %d password %s valid until %s",
		verb, role, w.Account.ConnectionLimit, literal(verifier), literal(until.UTC().Format("2006-01-02 15:04:05.000000+00")))}
	if there {
		say = []string{
			strings.Replace(say[0], " nosuperuser nocreaterole nocreatedb noreplication nobypassrls", "", 1), // which from 16 on only those may say who have them
			fmt.Sprintf("alter role %s reset all", role),
		}
		groups, err := formerGroups(c, name, w.Account.MemberOf)
		if err != nil {
			return "", err
		}
		for _, group := range groups {
			say = append(say, fmt.Sprintf("revoke %s from %s", identifier(group), role))
		}
	}
	for _, group := range w.Account.MemberOf {
		say = append(say, fmt.Sprintf("grant %s to %s", identifier(group), role))
	}
	comment := fmt.Sprintf("sallyport: %s@%s for grant %s", w.Account.Name, w.Target.Name, w.Grant)
	say = append(say, fmt.Sprintf("comment on role %s is %s", role, literal(comment)), "commit")
	for _, sql := range say {
		if _, err := c.Query(sql); err != nil {
			return "", err
		}
	}
	return outcome, nil
}

// formerGroups are the group roles that the role was made a member of by this account, and that its account does not name any more.
func formerGroups(c Conn, name string, now []string) (groups []string, err error) {
	named := make([]string, len(now))
	for i, group := range now {
		named[i] = literal(group)
	}
	rows, err := c.Query(fmt.Sprintf(`select g.rolname from pg_auth_members a join pg_roles g on g.oid = a.roleid join pg_roles m on m.oid = a.member join pg_roles by on by.oid = a.grantor
where m.rolname = %s and by.rolname = current_user and g.rolname <> all (array[%s]::name[])`, literal(name), strings.Join(named, ", ")))
	for _, row := range rows {
		groups = append(groups, row[0])
	}
	return groups, err
}

func exists(c Conn, name string) (bool, error) {
	rows, err := c.Query("select 1 from pg_roles where rolname = " + literal(name))
	return len(rows) > 0, err
}
