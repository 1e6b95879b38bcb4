package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/recorder/transparency"
)

const (
	// witnessTime bounds what one witness may take.
	witnessTime = 10 * time.Second
	// witnessPatience is how long a witness that fails is left alone at the most.
	witnessPatience = time.Minute
)

// Witness is one that is asked to cosign by c2sp.org/tlog-witness: POST {URL}/add-checkpoint.
type Witness struct {
	URL    string
	Key    transparency.WitnessKey
	Client *http.Client // nil: http.DefaultClient
}

// WitnessStatus is how it stands with a witness.
type WitnessStatus struct {
	Name string
	// Size is of the newest checkpoint that it cosigned since the gateway started, Time when it did.
	Size int64
	Time time.Time
	// Error is why it did not cosign when it was last asked; empty: it did, or was not asked yet.
	Error string
}

// ErrRolledBack is what a witness says that has seen a larger log: this one was set back, by hand or from a backup, or
// another gateway has its key.
var ErrRolledBack = errors.New("the witness has seen more leaves than this log has: it was set back, or somebody else has its key")

// Witnesses tells how it stands with each witness, in the configured order.
func (l *Log) Witnesses() []WitnessStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]WitnessStatus, len(l.o.Witnesses))
	for i, w := range l.o.Witnesses {
		all[i].Name = w.Key.Name()
		if i < len(l.asked) {
			all[i] = l.asked[i]
		}
	}
	return all
}

// WitnessKeys are the configured witnesses' keys.
func (l *Log) WitnessKeys() []transparency.WitnessKey {
	var keys []transparency.WitnessKey
	for _, w := range l.o.Witnesses {
		keys = append(keys, w.Key)
	}
	return keys
}

// Unwitnessed is for how long the oldest leaf has been waiting that no witness has seen; 0: none waits.
func (l *Log) Unwitnessed() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsigned.IsZero() {
		return 0
	}
	return max(1, time.Since(l.unsigned))
}

// witnessing asks the witnesses after each checkpoint, and again where one failed.
func (l *Log) witnessing(ctx context.Context) {
	wait := l.o.Interval
	for {
		timer := time.NewTimer(wait)
		if wait == l.o.Interval { // all is well: there is nothing to do before a checkpoint is signed
			timer.Stop()
		}
		select {
		case <-l.signed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
		if l.ask(ctx) {
			wait = l.o.Interval
		} else {
			wait = min(max(2*wait, 2*time.Second), witnessPatience)
		}
		if !pause(ctx, l.o.Interval) {
			return
		}
	}
}

// ask asks all witnesses to cosign the newest checkpoint, at once, and reports whether all did.
func (l *Log) ask(ctx context.Context) bool {
	asked := time.Now()
	c := l.Checkpoint()
	statuses := l.Witnesses()
	lines := make([][]byte, len(statuses))
	var all sync.WaitGroup
	for i, w := range l.o.Witnesses {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, witnessTime)
			defer cancel()
			signature, err := l.cosignature(ctx, w, c, statuses[i].Size)
			if err != nil {
				if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
					if statuses[i].Error == "" {
						l.o.Log.Error("a witness did not cosign the log", "witness", w.Key.Name(), "error", err)
					}
					statuses[i].Error = err.Error()
				}
				return
			}
			if statuses[i].Error != "" {
				l.o.Log.Info("a witness cosigns the log again", "witness", w.Key.Name())
			}
			lines[i] = signature
			statuses[i] = WitnessStatus{Name: w.Key.Name(), Size: c.Tree.N, Time: time.Now().UTC()}
		})
	}
	all.Wait()
	good := true
	var keys []transparency.WitnessKey
	for i, w := range l.o.Witnesses {
		good = good && lines[i] != nil
		keys = append(keys, w.Key)
	}
	signatures := bytes.Join(lines, nil)
	l.mu.Lock()
	l.asked = statuses
	l.mu.Unlock()
	if len(signatures) == 0 {
		return good
	}
	cosigned, err := transparency.ParseCheckpoint(c.WithSignatures(signatures), l.o.Key, keys...)
	if err == nil {
		err = l.replace(filepath.Join(l.dir, transparency.WitnessedFile), cosigned.Note)
	}
	if err != nil {
		l.o.Log.Error("cosignatures could not be kept", "error", err)
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.witnessed = cosigned
	if l.head.Tree == cosigned.Tree {
		l.unsigned = time.Time{}
		if l.size > cosigned.Tree.N {
			l.unsigned = asked
		}
	} else {
		l.unsigned = asked
	}
	return good
}

// cosignature gets one witness's signature lines for a checkpoint. size is of the last checkpoint that it cosigned, as far
// as is known; the witness knows better.
func (l *Log) cosignature(ctx context.Context, w Witness, c transparency.Checkpoint, size int64) ([]byte, error) {
	for range 3 {
		if size > c.Tree.N {
			return nil, fmt.Errorf("%w (%d, and not %d)", ErrRolledBack, size, c.Tree.N)
		}
		proof, err := l.Consistency(size, c.Tree.N)
		if err != nil {
			return nil, err
		}
		var body bytes.Buffer
		fmt.Fprintf(&body, "old %d\n", size)
		for _, h := range proof {
			body.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
		}
		body.WriteByte('\n')
		body.Write(c.Note)
		status, answer, err := post(ctx, w, &body)
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusConflict:
			known, err := strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64)
			if err != nil || known < 0 || known == size {
				return nil, fmt.Errorf("the witness refuses, and does not say what size it knows")
			}
			size = known
			continue
		case status != http.StatusOK:
			return nil, fmt.Errorf("the witness answers %d: %.200q", status, strings.TrimSpace(string(answer)))
		}
		read, err := transparency.ParseCheckpoint(c.WithSignatures(answer), l.o.Key, w.Key)
		if err != nil {
			return nil, fmt.Errorf("the witness's answer: %w", err)
		}
		if len(read.Cosigned) == 0 {
			return nil, errors.New("the witness's answer has no good signature of the configured key")
		}
		return answer, nil
	}
	return nil, errors.New("the witness's size changes while it is asked: does another gateway use this log's key?")
}

func post(ctx context.Context, w Witness, body io.Reader) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(w.URL, "/")+"/add-checkpoint", body)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("User-Agent", "sallyport")
	client := w.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, transparency.MaxCheckpoint))
	return response.StatusCode, answer, err
}
