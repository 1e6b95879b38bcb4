// Package witness cosigns the checkpoints of other people's logs, by c2sp.org/tlog-witness.
//
// It promises one thing: that of each log it has ever cosigned one history only. It keeps the last checkpoint of each, on
// stable storage before its signature goes out, demands a proof that the next begins with it, and refuses anything else,
// whoever signed it. Its signatures say when (c2sp.org/tlog-cosignature, cosignature/v1).
package witness

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// MaxRequest bounds the body of a request.
const MaxRequest = 64 << 10

// Options configure New; Log may be nil.
type Options struct {
	// Dir has the witness's key (file "key", made where it is missing) and the last checkpoint of each log.
	Dir string
	// Name is the key's, when it is made.
	Name string
	// Logs are the public keys of the logs to cosign.
	Logs []transparency.LogKey
	Log  *slog.Logger
}

// Witness cosigns. Its methods are safe for concurrent use. One process at a time may have a directory.
type Witness struct {
	o       Options
	private string
	public  string
	mu      sync.Mutex // one request at a time: what is kept and what is signed go together
}

// New opens a witness's directory.
func New(o Options) (*Witness, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the witness's directory: %w", err)
	}
	w := &Witness{o: o}
	if err := w.loadKey(); err != nil {
		return nil, err
	}
	for _, key := range o.Logs { // a state that can't be read is found now, and not taken for none
		if _, err := w.last(key); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Witness) loadKey() error {
	path := filepath.Join(w.o.Dir, "key")
	private, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		made, public, err := transparency.GenerateWitnessKey(w.o.Name)
		if err != nil {
			return fmt.Errorf("make the witness's key: %w", err)
		}
		if err := disk.Replace(path+".pub", []byte(public+"\n")); err != nil {
			return err
		}
		w.private, w.public = made, public
		return disk.Replace(path, []byte(made+"\n"))
	}
	if err != nil {
		return err
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		return err
	}
	w.private, w.public = strings.TrimSpace(string(private)), strings.TrimSpace(string(public))
	if _, err := transparency.ParseWitnessKey(w.public); err != nil {
		return err
	}
	_, err = transparency.SignerOf(w.private)
	return err
}

// PublicKey is what the logs' owners and auditors need.
func (w *Witness) PublicKey() string { return w.public }

func (w *Witness) path(origin string) string {
	hash := sha256.Sum256([]byte(origin))
	return filepath.Join(w.o.Dir, hex.EncodeToString(hash[:])+".checkpoint")
}

// last is the last checkpoint of a log that was cosigned; with none its Note is nil.
func (w *Witness) last(key transparency.LogKey) (transparency.Checkpoint, error) {
	signed, err := os.ReadFile(w.path(key.Name()))
	if errors.Is(err, fs.ErrNotExist) {
		return transparency.Checkpoint{}, nil
	}
	if err != nil {
		return transparency.Checkpoint{}, err
	}
	c, err := transparency.ParseCheckpoint(signed, key)
	if err != nil {
		return c, fmt.Errorf("the last checkpoint of %s can't be read: %w", key.Name(), err)
	}
	return c, nil
}

// refused is an answer that is no signature.
type refused struct {
	status int
	size   int64 // with StatusConflict
	why    string
}

func (r *refused) Error() string { return r.why }

func refuse(status int, format string, args ...any) *refused {
	return &refused{status: status, why: fmt.Sprintf(format, args...)}
}

// request is what a log asks for.
type request struct {
	old   int64
	proof []tlog.Hash
	note  []byte
}

func parse(body []byte) (r request, err error) {
	head, signed, ok := strings.Cut(string(body), "\n\n")
	if !ok {
		return r, errors.New("the request has no blank line")
	}
	r.note = []byte(signed)
	lines := strings.Split(head, "\n")
	old, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return r, errors.New("the request does not begin with the old size")
	}
	if r.old, err = strconv.ParseInt(old, 10, 64); err != nil || r.old < 0 || strconv.FormatInt(r.old, 10) != old {
		return r, errors.New("the old size is no number")
	}
	if len(lines)-1 > 63 {
		return r, errors.New("the proof is too long")
	}
	for _, line := range lines[1:] {
		var h tlog.Hash
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != len(h) {
			return r, errors.New("the proof has a line that is no hash")
		}
		copy(h[:], raw)
		r.proof = append(r.proof, h)
	}
	return r, nil
}

// addCheckpoint checks a request and returns the signature line. An error is a *refused, or the witness's own failure.
func (w *Witness) addCheckpoint(body []byte) ([]byte, error) {
	r, err := parse(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	origin, _, _ := strings.Cut(string(r.note), "\n")
	var key transparency.LogKey
	for _, k := range w.o.Logs {
		if k.Name() == origin {
			key = k
		}
	}
	if key.Verifier == nil {
		return nil, refuse(http.StatusNotFound, "this witness does not know the log %.100q", origin)
	}
	next, err := transparency.ParseCheckpoint(r.note, key)
	if err != nil {
		return nil, refuse(http.StatusForbidden, "the checkpoint has no good signature of its log")
	}
	if r.old > next.Tree.N {
		return nil, refuse(http.StatusBadRequest, "the old size is above the checkpoint's")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last, err := w.last(key)
	if err != nil {
		return nil, err
	}
	conflict := &refused{status: http.StatusConflict, size: last.Tree.N}
	switch {
	case r.old != last.Tree.N:
		conflict.why = "the last checkpoint has another size"
		return nil, conflict
	case r.old == 0 || r.old == next.Tree.N:
		if len(r.proof) > 0 {
			return nil, refuse(http.StatusUnprocessableEntity, "there is nothing to prove, and a proof")
		}
		if r.old == next.Tree.N && r.old > 0 && last.Tree.Hash != next.Tree.Hash {
			w.o.Log.Error("a log shows another history", "log", origin, "size", r.old)
			conflict.why = "the last checkpoint of that size has another root"
			return nil, conflict
		}
	default:
		if err := tlog.CheckTree(r.proof, next.Tree.N, next.Tree.Hash, last.Tree.N, last.Tree.Hash); err != nil {
			w.o.Log.Error("a log can't prove that it only grew", "log", origin, "from", last.Tree.N, "to", next.Tree.N)
			return nil, refuse(http.StatusUnprocessableEntity, "the proof does not lead from the last checkpoint to this one")
		}
	}
	signature, err := transparency.Cosign(next, w.private)
	if err != nil {
		return nil, err
	}
	// Only the log's own text and signature, and ours: lines of others could make it too long to be read again.
	text, lines, _ := strings.Cut(string(next.Note), "\n\n")
	kept := text + "\n\n"
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, "— "+origin+" ") {
			kept += line
		}
	}
	return signature, disk.Replace(w.path(origin), append([]byte(kept), signature...))
}

// ServeHTTP implements http.Handler: POST /add-checkpoint for logs; for people GET / lists the logs, and
// GET /checkpoint/HASH gives the last cosigned checkpoint of the log whose origin has that SHA-256.
func (w *Witness) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	switch hash, named := strings.CutPrefix(in.URL.Path, "/checkpoint/"); {
	case in.URL.Path == "/add-checkpoint" && in.Method == http.MethodPost:
		w.serveAdd(out, in)
	case in.Method != http.MethodGet && in.Method != http.MethodHead:
		http.Error(out, "there is POST /add-checkpoint, and GET for the rest", http.StatusMethodNotAllowed)
	case named:
		w.serveLast(out, hash)
	case in.URL.Path == "/":
		w.serveList(out)
	default:
		http.NotFound(out, in)
	}
}

func (w *Witness) serveAdd(out http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(out, in.Body, MaxRequest))
	if err != nil {
		http.Error(out, "the request can't be read", http.StatusBadRequest)
		return
	}
	signature, err := w.addCheckpoint(body)
	no, is := errors.AsType[*refused](err)
	switch {
	case err == nil:
		out.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = out.Write(signature) // an error is the log going away
	case is && no.status == http.StatusConflict:
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(no.status)
		fmt.Fprintf(out, "%d\n", no.size)
	case is:
		http.Error(out, no.why, no.status)
	default:
		w.o.Log.Error("a checkpoint could not be cosigned", "error", err)
		http.Error(out, "the witness has failed", http.StatusInternalServerError)
	}
}

func (w *Witness) serveLast(out http.ResponseWriter, hash string) {
	for _, key := range w.o.Logs {
		path := w.path(key.Name())
		if filepath.Base(path) != hash+".checkpoint" {
			continue
		}
		signed, err := os.ReadFile(path)
		if err != nil {
			break
		}
		out.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = out.Write(signed)
		return
	}
	http.Error(out, "this witness has cosigned no such log", http.StatusNotFound)
}

// Known is what a witness tells of a log.
type Known struct {
	Origin     string    `json:"origin"`
	Size       int64     `json:"size"`
	Root       string    `json:"root,omitempty"`
	Time       time.Time `json:"time,omitzero"` // of the cosignature
	Checkpoint string    `json:"checkpoint"`    // where it is
}

func (w *Witness) serveList(out http.ResponseWriter) {
	key, err := transparency.ParseWitnessKey(w.public)
	list := struct {
		Key  string  `json:"key"`
		Logs []Known `json:"logs"`
	}{Key: w.public, Logs: []Known{}}
	for _, log := range w.o.Logs {
		known := Known{Origin: log.Name(), Checkpoint: "/checkpoint/" + strings.TrimSuffix(filepath.Base(w.path(log.Name())), ".checkpoint")}
		signed, missing := os.ReadFile(w.path(log.Name()))
		if missing == nil && err == nil {
			if c, err := transparency.ParseCheckpoint(signed, log, key); err == nil && len(c.Cosigned) > 0 {
				known.Size, known.Root, known.Time = c.Tree.N, c.Tree.Hash.String(), c.Cosigned[0].Time
			}
		}
		list.Logs = append(list.Logs, known)
	}
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(list)
}
