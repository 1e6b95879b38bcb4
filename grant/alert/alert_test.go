package alert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func rules(t testing.TB, alerts ...configs.Alert) *Rules {
	t.Helper()
	for i := range alerts {
		alerts[i].Count = max(alerts[i].Count, 1)
		alerts[i].To = []string{"webhook/ops"}
	}
	r, err := Compile(&configs.Config{Alerts: alerts})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func refused(at time.Duration, actor string) store.AuditEvent {
	return store.AuditEvent{Time: noon.Add(at), Kind: "session.refused", Actor: actor, Client: "192.0.2.1", Outcome: "no_grant", Fields: map[string]string{"policy": "p"}}
}

func names(raised []grant.Alert) (all []string) {
	for _, a := range raised {
		all = append(all, a.Name)
	}
	return all
}

func TestConditions(t *testing.T) {
	night := refused(11*time.Hour, "i alice") // midnight in Berlin
	night.Kind = "session.started"
	glass := store.AuditEvent{Time: noon, Kind: "grant.break_glass", Actor: "i alice", Outcome: "ok"}
	for when, want := range map[string][3]bool{ // night, glass, refused
		`event.kind == "grant.break_glass"`:                                                {false, true, false},
		`event.kind == "session.started" && event.time.getHours("Europe/Berlin") in [0,1]`: {true, false, false},
		`event.kind.endsWith(".refused")`:                                                  {false, false, true},
		`event.fields.policy == "p"`:                                                       {true, false, true}, // an error is no
		`has(event.fields.policy)`:                                                         {true, false, true},
		`cidr("192.0.2.0/24").containsIP(event.client)`:                                    {true, false, true},
		`event.outcome != "ok"`:                                                            {true, false, true},
		`event.fields.policy`:                                                              {},
	} {
		r, err := Compile(&configs.Config{Alerts: []configs.Alert{{Name: "a", When: when, Count: 1}}})
		if strings.HasSuffix(when, "fields.policy") {
			if err == nil {
				t.Errorf("%s was taken for a condition", when)
			}
			continue
		}
		if err != nil {
			t.Fatal(when, err)
		}
		for i, e := range []store.AuditEvent{night, glass, refused(0, "i bob")} {
			if got := len(r.Look(e)) == 1; got != want[i] {
				t.Errorf("%s of %s: %v", when, e.Kind, got)
			}
		}
	}
}

func TestBurstsAreCountedByActorInAWindow(t *testing.T) {
	r := rules(t, configs.Alert{Name: "burst", When: `event.kind.endsWith(".refused")`, Count: 3, Within: configs.Duration(10 * time.Minute), By: "actor"})
	look := func(at time.Duration, actor string, want ...string) (raised []grant.Alert) {
		t.Helper()
		raised = r.Look(refused(at, actor))
		if !slices.Equal(names(raised), want) {
			t.Errorf("%s by %s: %v", at, actor, raised)
		}
		return raised
	}
	look(0, "alice")
	look(time.Minute, "bob")
	look(2*time.Minute, "alice")
	look(10*time.Minute, "alice") // the first is ten minutes old, and no more within
	a := look(11*time.Minute, "alice", "burst")[0]
	if a.Count != 3 || a.Key != "alice" || !a.Since.Equal(noon.Add(2*time.Minute)) || !strings.Contains(a.Text(), "Alert burst: session.refused (3 since 2026-11-24 12:02:00 UTC) by alice") {
		t.Errorf("%+v: %s", a, a.Text())
	}
	look(11*time.Minute, "bob") // whose second it is within
	look(12*time.Minute, "alice")
	look(13*time.Minute, "alice")
	look(14*time.Minute, "alice", "burst") // three others
}

func TestAlertsRaiseNone(t *testing.T) {
	r := rules(t, configs.Alert{Name: "all", When: `true`})
	if raised := r.Look(store.AuditEvent{Time: noon, Kind: "alert.raised"}); len(raised) > 0 {
		t.Error("an alert of an alert")
	}
}

// However much happens, what is told and what is remembered stay bounded.
func TestStorm(t *testing.T) {
	r := rules(t, configs.Alert{Name: "all", When: `true`}, configs.Alert{Name: "pairs", When: `true`, Count: 2, Within: configs.Duration(time.Hour), By: "actor"})
	var told []grant.Alert
	for i := range 3 * maxKeys {
		told = append(told, r.Look(refused(time.Duration(i)*time.Millisecond, fmt.Sprint("i ", i)))...)
	}
	if len(told) != mostTold || told[mostTold-2].Quiet.After(noon) || !told[mostTold-1].Quiet.Equal(noon.Add(tellingTime)) {
		t.Errorf("%d were told, the last with %s", len(told), told[len(told)-1].Quiet)
	}
	if n := len(r.rules[1].seen); n > maxKeys {
		t.Errorf("%d are remembered", n)
	}
	if len(r.Look(refused(tellingTime+time.Minute, "i later"))) != 1 {
		t.Error("an hour later it is not told either")
	}
	huge := refused(2*tellingTime, strings.Repeat("é", 1<<20))
	huge.Fields = map[string]string{}
	for i := range 10_000 {
		huge.Fields[fmt.Sprint(i)] = strings.Repeat("x", 5000)
	}
	if in := input(huge); len(in["event.actor"].(string)) > maxText+3 || len(in["event.fields"].(map[string]string)) > maxFields {
		t.Error("a condition is asked about an event of any size")
	}
}

func TestFaultsHaveTheirPlace(t *testing.T) {
	const text = `state: state
url: https://gateway.example
listen: {https: "127.0.0.1:0"}
tls: {certificate: cert.pem, key: key.pem}
provider: {issuer: https://login.example, client_id: x}
approvals:
  webhooks: [{name: ops, url: https://ops.example, secret: "env:X"}]
alerts:
  - name: good
    when: event.kind == "grant.break_glass"
  - name: unknown
    when: event.kind == "a" && nobody == 1
  - name: dear
    when: event.fields.exists(a, event.fields.exists(b, a == b))
`
	dir := t.TempDir()
	for name, content := range map[string]string{"cert.pem": "", "key.pem": "", "sallyport.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := configs.Load(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Alerts[0]; a.Count != 1 || a.By != "actor" || !slices.Equal(a.To, []string{"webhook/ops"}) {
		t.Errorf("%+v", a)
	}
	_, err = Compile(c)
	problems, ok := errors.AsType[configs.Problems](err)
	if !ok || len(problems) != 2 {
		t.Fatal(err)
	}
	if p := problems[0]; filepath.Base(p.File) != "sallyport.yaml" || !strings.HasPrefix(strings.Split(text, "\n")[p.Line-1][p.Column-1:], "nobody") {
		t.Errorf("%s", p)
	}
	for _, wrong := range []string{
		"  - {name: A, when: 'true'}", "  - {name: a}", "  - {name: a, when: 'true', count: 5}", "  - {name: a, when: 'true', count: 5000, within: 1h}",
		"  - {name: a, when: 'true', within: 25h}", "  - {name: a, when: 'true', by: moon}", "  - {name: a, when: 'true', to: [slack/ops]}", "  - {name: good, when: 'true'}",
	} {
		if err := os.WriteFile(filepath.Join(dir, "sallyport.yaml"), []byte(text+wrong+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := configs.Load(filepath.Join(dir, "sallyport.yaml")); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}

func BenchmarkLook(b *testing.B) {
	var alerts []configs.Alert
	for i := range 20 {
		alerts = append(alerts, configs.Alert{Name: fmt.Sprint("a", i), When: `event.kind == "x" && event.time.getHours("Europe/Berlin") < 6`})
	}
	r := rules(b, alerts...)
	e := refused(0, "i alice")
	for b.Loop() {
		r.Look(e)
	}
}

// A configuration that was refused, and a role that stays on its target, are told without anybody having asked for it, wherever there is
// a channel; an alert of the same name takes the place of one of them.
func TestHouseAlerts(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const base = `state: state
url: https://gateway.example
listen: {https: "127.0.0.1:0"}
tls: {certificate: tls.crt, key: tls.key}
provider: {issuer: https://login.example, client_id: x}
`
	const channel = `approvals: {webhooks: [{name: ops, url: "https://x.example", secret: "env:A"}]}
`
	events := []store.AuditEvent{
		{Time: noon, Kind: "config.reloaded", Actor: "system", Outcome: "failed", Reason: "policies.yaml:3:1: no"},
		{Time: noon, Kind: "config.reloaded", Actor: "system", Outcome: "ok"},
		{Time: noon, Kind: "role.cleanup_stuck", Actor: "system", Outcome: "failed", Target: "orders"},
	}
	for _, test := range []struct{ text, raised string }{
		{base + channel, "configuration-refused,,role-not-dropped"},
		{base + channel + `alerts: [{name: role-not-dropped, when: "false"}]`, "configuration-refused,,"},
		{base, ",,"},
	} {
		file := filepath.Join(dir, "sallyport.yaml")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := configs.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		var raised []string
		for _, e := range events {
			raised = append(raised, strings.Join(names(r.Look(e)), " "))
		}
		if got := strings.Join(raised, ","); got != test.raised {
			t.Errorf("%s: %s, want %s", test.text, got, test.raised)
		}
	}
}
