package recorder

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
	"sallyport/recorder/transparency/witness"
)

// TestRequiredWitness: with require_witness no session begins while the log waits for a witness for longer than that, also after a
// restart; it does again when the witness has seen it.
func TestRequiredWitness(t *testing.T) {
	dir := t.TempDir()
	signer, key, err := ledger.LoadKey(filepath.Join(dir, "keys"), "gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	seer, err := witness.New(witness.Options{Dir: t.TempDir(), Name: "witness.example", Logs: []transparency.LogKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	var away atomic.Bool
	away.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		seer.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	public, err := transparency.ParseWitnessKey(seer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	open := func(most time.Duration) *Recorder {
		l, err := ledger.Open(t.Context(), ledger.Options{Dir: dir, Signer: signer, Key: key, Interval: time.Millisecond, Log: testLog(t),
			Witnesses: []ledger.Witness{{Key: public, URL: server.URL, Client: server.Client()}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(t.Context(), Options{Dir: dir, Log: testLog(t), Ledger: l,
			Config: configs.Recording{Durability: configs.Written, RequireWitness: configs.Duration(most)}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	close := func(r *Recorder) {
		if err := errors.Join(r.Close(context.Background()), r.Ledger.Close(context.Background())); err != nil {
			t.Error(err)
		}
	}
	try := func(r *Recorder, session string) error {
		rec, err := r.Begin(t.Context(), header(session), "")
		if err == nil {
			err = rec.End(format.End{Reason: "over"})
		}
		return err
	}
	r := open(time.Hour)
	if err := try(r, "s1"); err != nil { // nobody has waited for so long
		t.Fatal(err)
	}
	close(r)
	const most = 100 * time.Millisecond
	r = open(most)
	eventually(t, "no session begins", func() bool { return refusal.Is(r.Ready(), refusal.Unwitnessed) })
	if err := try(r, "s2"); !refusal.Is(err, refusal.Unwitnessed) {
		t.Errorf("a session: %v", err)
	}
	close(r)
	r = open(most) // at once: a start makes no leaf younger
	if err := try(r, "s3"); !refusal.Is(err, refusal.Unwitnessed) {
		t.Errorf("after a restart: %v", err)
	}
	away.Store(false)
	eventually(t, "sessions begin again", func() bool { return r.Ready() == nil })
	close(r)

	without, err := Open(t.Context(), Options{Dir: t.TempDir(), Log: testLog(t), Config: configs.Recording{Durability: configs.Written, RequireWitness: configs.Duration(most)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { without.Close(context.Background()) })
	if err := try(without, "s1"); !refusal.Is(err, refusal.Unwitnessed) {
		t.Errorf("without any witness: %v", err)
	}
}
