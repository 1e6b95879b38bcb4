package verify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/recorder/format"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func session(name, protocol, target string, connected ...connection) File {
	return File{Session: name, Protocol: protocol, header: format.Header{Target: target}, connected: connected}
}

func connected(after time.Duration, local string, pid uint32, serial uint64) connection {
	return connection{Connected: format.Connected{Local: local, BackendPID: pid, Serial: serial}, at: noon.Add(after)}
}

func csvLine(when, user string, pid int, from, message string) string {
	return fmt.Sprintf(`%s,"%s","orders",%d,"%s",6745b1c1.1a2b,1,"authentication",2026-11-25 11:59:59 UTC,3/4,0,LOG,00000,"%s",,,,,,,,,"","client backend",,0`+"\n",
		when, user, pid, from, message)
}

func TestReconcilePostgres(t *testing.T) {
	r := &Report{Recordings: []File{
		session("s-1", "postgres", "orders", connected(0, "10.0.0.5:40001", 100, 0)),
		session("s-2", "postgres", "orders", connected(time.Minute, "10.0.0.5:40002", 101, 0), connection{at: noon.Add(2 * time.Minute), act: true}),
		session("s-3", "postgres", "other", connected(0, "10.0.0.5:40009", 109, 0)),
		session("s-4", "ssh", "orders", connected(0, "10.0.0.5:40009", 109, 0)),
	}}
	ok := "connection authorized: user=app database=orders"
	log := csvLine("2026-11-25 12:00:00.100 UTC", "app", 100, "10.0.0.5:40001", ok) +
		csvLine("2026-11-25 13:01:00.100 CET", "app", 101, "10.0.0.5:40002", ok) + // another zone, the same ends
		csvLine("2026-11-25 12:02:01.000 UTC", "gate", 102, "10.0.0.5:40003", ok) + // ends the backend of s-2
		csvLine("2026-11-25 12:02:02.000 UTC", "gate", 103, "10.0.0.5:40004", ok) + // there was one act only
		csvLine("2026-11-25 12:00:05.000 UTC", "app", 104, "10.9.9.9:5555", ok) +
		csvLine("2026-11-25 12:00:05.000 UTC", "app", 109, "10.0.0.5:40009", ok) + // that session was on another target
		csvLine("2026-11-25 12:00:06.000 UTC", "app", 105, "[local]", ok) +
		csvLine("2026-11-25 12:00:06.000 UTC", "app", 105, "10.9.9.9:1", `statement: SELECT 'a ""quoted"", line\nconnection authorized: user=x'`) +
		csvLine("2026-11-25 12:00:07.000 UTC", "app", 100, "10.0.0.5:40001", ok) // the same port and pid once more
	out, err := r.Reconcile(strings.NewReader(log), ReconcileOptions{Target: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	var foreign []string
	for _, l := range out.Foreign {
		foreign = append(foreign, l.From)
	}
	want := "10.0.0.5:40004 10.9.9.9:5555 10.0.0.5:40009 [local] 10.0.0.5:40001"
	if got := strings.Join(foreign, " "); out.Kind != "postgres" || out.Logins != 8 || out.Matched != 2 || len(out.Acts) != 1 || got != want || out.Unseen != 0 {
		t.Errorf("%+v\n%s, want %s", out, got, want)
	}
}

func TestReconcileSSH(t *testing.T) {
	r := &Report{Recordings: []File{
		session("s-1", "ssh", "web-1", connected(0, "10.0.0.5:40001", 0, 77)),
		session("s-2", "ssh", "web-1", connected(time.Hour, "[2001:db8::5]:40002", 0, 78)),
		session("s-3", "ssh", "web-1", connected(time.Hour, "10.0.0.5:40003", 0, 79)),
	}}
	log := `Nov 25 12:00:01 web-1 sshd[4711]: Accepted publickey for deploy from 10.0.0.5 port 40001 ssh2: ED25519-CERT SHA256:abc ID s-1 (serial 77) CA ED25519 SHA256:def
2026-11-25T14:00:01.123456+01:00 web-1 sshd-session[4712]: Accepted publickey for deploy from 2001:db8::5 port 40002 ssh2: ED25519-CERT SHA256:abc ID s-2 (serial 78) CA ED25519 SHA256:def
Nov 25 12:00:02 web-1 sshd[4713]: Accepted password for root from 10.9.9.9 port 50000 ssh2
Nov 25 12:00:03 web-1 sshd[4714]: Accepted publickey for deploy from 10.9.9.9 port 50001 ssh2: ED25519-CERT SHA256:abc ID s-1 (serial 9) CA ED25519 SHA256:def
Nov 25 12:00:04 web-1 sshd[4715]: Failed password for root from 10.9.9.9 port 50002 ssh2
Nov 25 12:00:05 web-1 sudo: deploy : Accepted publickey for nobody from 1.1.1.1 port 1
`
	out, err := r.Reconcile(strings.NewReader(log), ReconcileOptions{Now: noon.Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if out.Kind != "ssh" || out.Logins != 4 || out.Matched != 2 || len(out.Foreign) != 2 || out.Unseen != 1 ||
		out.Foreign[0].Account != "root" || out.Foreign[0].Method != "password" || out.Foreign[1].Serial != 9 {
		t.Errorf("%+v", out)
	}
}
