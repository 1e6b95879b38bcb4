package ssh

import (
	"strings"
	"testing"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

func TestCheck(t *testing.T) {
	r := newRig(t)
	good, _ := r.grants.Target("web-1")
	me := good.Accounts[0]
	if result, err := r.handler.Check(t.Context(), r.alice, good, me); err != nil || result.User != r.account || !strings.HasPrefix(result.Version, "SSH-2.0-OpenSSH") {
		t.Errorf("a good target: %+v, %v", result, err)
	}
	changed, _ := r.grants.Target("changed")
	unpinned := good
	unpinned.HostKeys = nil
	down, _ := r.grants.Target("down")
	for name, test := range map[string]struct {
		target  configs.Target
		account configs.Account
		words   string
	}{
		"its key changed":       {changed, me, "pinned"},
		"no pin":                {unpinned, me, "targets trust web-1"},
		"an account it has not": {good, configs.Account{Name: "nobody-here"}, "targets setup web-1"},
		"down":                  {down, me, "can't be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.handler.Check(t.Context(), r.alice, test.target, test.account)
			if !refusal.Is(err, refusal.TargetFailed) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestScanHostKeys(t *testing.T) {
	r := newRig(t)
	for name, pinned := range map[string]bool{"web-1": true, "changed": false} {
		target, _ := r.grants.Target(name)
		keys, err := r.handler.ScanHostKeys(t.Context(), r.alice, target)
		if err != nil || len(keys) != 1 || keys[0].Key != line(r.sshd.hostKey) || keys[0].Pinned != pinned {
			t.Errorf("%s: %+v, %v", name, keys, err)
		}
	}
}
