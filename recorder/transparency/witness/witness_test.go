package witness

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/transparency"
)

// history is a log of its own making.
type history struct {
	t      *testing.T
	signer note.Signer
	stored []tlog.Hash
	size   int64
}

func (h *history) grow(to int64, word string) {
	for ; h.size < to; h.size++ {
		hashes, err := tlog.StoredHashes(h.size, fmt.Appendf(nil, "%s %d", word, h.size), h)
		if err != nil {
			h.t.Fatal(err)
		}
		h.stored = append(h.stored, hashes...)
	}
}

func (h *history) ReadHashes(indexes []int64) (found []tlog.Hash, err error) {
	for _, i := range indexes {
		found = append(found, h.stored[i])
	}
	return found, nil
}

func (h *history) checkpoint() transparency.Checkpoint {
	root, err := tlog.TreeHash(h.size, h)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := transparency.Sign(h.signer, tlog.Tree{N: h.size, Hash: root})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// request asks to cosign what the log is now, from that size on.
func (h *history) request(old int64) string {
	var proof tlog.TreeProof
	if old > 0 && old < h.size {
		var err error
		if proof, err = tlog.ProveTree(h.size, old, h); err != nil {
			h.t.Fatal(err)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", old)
	for _, hash := range proof {
		b.WriteString(base64.StdEncoding.EncodeToString(hash[:]) + "\n")
	}
	return b.String() + "\n" + string(h.checkpoint().Note)
}

func ask(w http.Handler, body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	w.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/add-checkpoint", strings.NewReader(body)))
	return answer
}

// The answers are those of c2sp.org/tlog-witness, and of each log one history is cosigned, also by the next process.
func TestOneHistoryOnly(t *testing.T) {
	private, public, err := transparency.GenerateKey("gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := transparency.SignerOf(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := transparency.ParseLogKey(public)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Name: "w.example", Logs: []transparency.LogKey{key}}
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	witnessKey, err := transparency.ParseWitnessKey(w.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	h, forged := &history{t: t, signer: signer}, &history{t: t, signer: signer}
	h.grow(10, "true")
	forged.grow(10, "false")
	expect := func(what string, answer *httptest.ResponseRecorder, status int, size string) {
		t.Helper()
		if answer.Code != status || status == http.StatusConflict && (answer.Body.String() != size+"\n" || answer.Header().Get("Content-Type") != "text/x.tlog.size") {
			t.Errorf("%s: %d %q, want %d %s", what, answer.Code, answer.Body, status, size)
		}
	}
	expect("an old size that the witness does not know", ask(w, h.request(5)), 409, "0")
	good := ask(w, h.request(0))
	expect("the first", good, 200, "")
	if c, err := transparency.ParseCheckpoint(h.checkpoint().WithSignatures(good.Body.Bytes()), key, witnessKey); err != nil || len(c.Cosigned) != 1 {
		t.Errorf("the answer is no cosignature: %q %v", good.Body, err)
	}
	expect("the same once more", ask(w, h.request(10)), 200, "")
	expect("another history of that size", ask(w, forged.request(10)), 409, "10")
	expect("the first once more", ask(w, h.request(0)), 409, "10")
	forged.grow(20, "false")
	expect("another history", ask(w, forged.request(10)), 422, "")
	h.grow(20, "true")
	if w, err = New(o); err != nil { // as after a restart
		t.Fatal(err)
	}
	expect("another history, after a restart", ask(w, forged.request(10)), 422, "")
	if again, err := transparency.ParseWitnessKey(w.PublicKey()); err != nil || again.Text != witnessKey.Text {
		t.Errorf("the key is another after a restart: %v", err)
	}
	expect("a proof left out", ask(w, "old 10\n\n"+string(h.checkpoint().Note)), 422, "")
	expect("grown", ask(w, h.request(10)), 200, "")
	expect("old above the checkpoint", ask(w, h.request(21)), 400, "")

	otherPrivate, _, err := transparency.GenerateKey("gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	if forged.signer, err = transparency.SignerOf(otherPrivate); err != nil {
		t.Fatal(err)
	}
	expect("another key of the same name", ask(w, forged.request(20)), 403, "")
	unknownPrivate, _, err := transparency.GenerateKey("other.example/log")
	if err != nil {
		t.Fatal(err)
	}
	if forged.signer, err = transparency.SignerOf(unknownPrivate); err != nil {
		t.Fatal(err)
	}
	expect("a log that is not configured", ask(w, forged.request(0)), 404, "")
	for _, nonsense := range []string{"", "old\n\n", "old -1\n\nx", "old 01\n\nx", "old 1\nxx\n\nx", "old 1\n" + strings.Repeat(strings.Repeat("A", 43)+"=\n", 64) + "\nx"} {
		expect(fmt.Sprintf("%.20q", nonsense), ask(w, nonsense), 400, "")
	}
	expect("too long", ask(w, strings.Repeat("x", MaxRequest+1)), 400, "")

	// What it kept is for anybody to see, and goes on being a checkpoint of the log.
	answer := httptest.NewRecorder()
	w.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	if !bytes.Contains(answer.Body.Bytes(), []byte(`"size":20`)) {
		t.Errorf("%s", answer.Body)
	}
	// A state that can't be read is not taken for none.
	if err := os.WriteFile(w.path(key.Name()), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); err == nil {
		t.Error("a witness without a memory started")
	}
	expect("with a broken state", ask(w, h.request(0)), 500, "")
}
