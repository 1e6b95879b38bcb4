package ssh

import (
	"slices"
	"strings"
	"testing"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/session"
)

func TestCheckAndTrust(t *testing.T) {
	r := newRig(t)
	act := func(target configs.Target, kind session.ActKind, account string) error {
		a, _ := grant.Account(target, account)
		return r.sessions.ActOn(t.Context(), target, r.alice, session.Act{Kind: kind, Reason: "test", Do: r.handler.Check(target, a, r.alice)})
	}
	good, _ := r.grants.Target("web-1")
	if err := act(good, session.ActCheck, "me"); err != nil {
		t.Errorf("a good target: %v", err)
	}
	changed, _ := r.grants.Target("changed")
	if err := act(changed, session.ActCheck, "me"); !refusal.Is(err, refusal.TargetFailed) || !strings.Contains(err.Error(), "pinned") {
		t.Errorf("a target whose key changed: %v", err)
	}
	unpinned := good
	unpinned.HostKeys = nil
	if err := act(unpinned, session.ActCheck, "me"); !refusal.Is(err, refusal.TargetFailed) || !strings.Contains(err.Error(), "trust web-1") {
		t.Errorf("a target without a pin: %v", err)
	}
	closed := good
	closed.Accounts = []configs.Account{{Name: "nobody-here"}}
	if err := act(closed, session.ActCheck, "nobody-here"); !refusal.Is(err, refusal.TargetFailed) || !strings.Contains(err.Error(), "setup web-1") {
		t.Errorf("an account that the target does not know: %v", err)
	}
	var found []string
	for _, kind := range HostKeyKinds() {
		err := r.sessions.ActOn(t.Context(), changed, r.alice, session.Act{Kind: session.ActTrust, Reason: "test",
			Do: r.handler.ScanHostKeys(kind, func(k HostKey) { found = append(found, k.Line) })})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if want := []string{line(r.sshd.hostKey)}; !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
