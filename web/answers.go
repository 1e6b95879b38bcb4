package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/idempotency"
)

// idempotencyKey is the header by which a client that asks again says that it is the same thing
// (draft-ietf-httpapi-idempotency-key-header).
const idempotencyKey = "Idempotency-Key"

// answeredOnce, in an operation's metadata, marks answers that hold a secret and are not kept for those who ask again.
const answeredOnce = "answered-once"

// keptAnswer holds an answer back until it is whole.
type keptAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) WriteHeader(status int) {
	if k.status == 0 {
		k.status = status
	}
}

func (k *keptAnswer) Write(b []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	return k.body.Write(b)
}

// Unwrap is for http.ResponseController.
func (k *keptAnswer) Unwrap() http.ResponseWriter { return k.ResponseWriter }

// send sends what was held back.
func (k *keptAnswer) send() {
	k.ResponseWriter.WriteHeader(max(k.status, http.StatusOK))
	_, _ = k.ResponseWriter.Write(k.body.Bytes()) // an error is the client going away
}

// tagged gives an answer its ETag, and answers 304 to who has it already (RFC 9110, 8.8.3 and 13.1.2).
func tagged(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	kept := &keptAnswer{ResponseWriter: w}
	next(humago.NewContext(ctx.Operation(), r.WithContext(ctx.Context()), kept))
	if kept.status == http.StatusOK {
		tag := tagOf(kept.body.Bytes())
		w.Header().Set("ETag", tag)
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.Header().Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	kept.send()
}

// tagOf is the ETag of an answer's body.
func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// tagOfValue is the ETag that the answer with this value has.
func tagOfValue(v any) (string, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return tagOf(body.Bytes()), err
}

// matches says whether a conditional header names the tag; weak ones are compared as if they were strong.
func matches(headers []string, tag string) bool {
	for _, h := range headers {
		for one := range strings.SplitSeq(h, ",") {
			if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}

// unchanged refuses when the caller decides on something that is not any more what they looked at. Without a tag there is
// nothing to compare.
func unchanged(ifMatch string, now any) error {
	if ifMatch == "" {
		return nil
	}
	tag, err := tagOfValue(now)
	if err != nil {
		return err
	}
	if matches([]string{ifMatch}, tag) {
		return nil
	}
	return refusal.New(api.Changed, "it is not any more what you looked at").WithDetail("it changed since, or If-Match names another state").
		WithHint("look at it again, then decide")
}

// once carries a request with an idempotency key out once, and gives the first answer to who asks again.
func (s *server) once(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	who, ok := ctx.Context().Value(callerKey{}).(caller)
	keys := r.Header.Values(idempotencyKey)
	if len(keys) == 0 || !ok || s.Keys == nil {
		next(ctx)
		return
	}
	op := ctx.Operation()
	body, err := io.ReadAll(r.Body)
	if err != nil || len(keys) > 1 {
		status := http.StatusBadRequest
		if errors.As(err, new(*http.MaxBytesError)) {
			status = http.StatusRequestEntityTooLarge
		}
		p := problem(refusal.New(refusal.Invalid, "the request can't be read").WithDetail("its body is too large or was cut short, or it has more than one %s", idempotencyKey))
		p.Status, p.Title = status, http.StatusText(status)
		write(w, p)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	request := idempotency.Request{
		Caller: who.Key(), Operation: op.OperationID, Key: keys[0],
		Content: slices.Concat([]byte(r.URL.RequestURI()), []byte{0}, body),
	}
	before, err := s.Keys.Begin(r.Context(), request)
	if err != nil {
		write(w, s.fail(op.OperationID, err))
		return
	}
	secret, _ := op.Metadata[answeredOnce].(bool)
	if before != nil {
		w.Header().Set("Idempotency-Replayed", "true")
		if secret {
			write(w, problem(refusal.New(refusal.Conflict, "this was done, and its answer is given only once").
				WithHint("end what you were given and do not have, and ask with a new %s", idempotencyKey)))
			return
		}
		if before.Kind != "" {
			w.Header().Set("Content-Type", before.Kind)
		}
		w.WriteHeader(before.Status)
		_, _ = w.Write(before.Body) // an error is the client going away
		return
	}
	kept := &keptAnswer{ResponseWriter: w}
	// Whatever happens meanwhile, also that the client goes away: what was done is kept as done, what was refused is free
	// again. After a failure nobody knows what was done, and the key stays taken.
	end := func(f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), operationTimeout)
		defer cancel()
		if err := f(ctx); err != nil {
			s.Log.Error("an idempotency key could not be kept", "operation", op.OperationID, "error", err)
		}
	}
	next(humago.NewContext(op, r.WithContext(ctx.Context()), kept))
	if kept.status/100 == 2 {
		answer := idempotency.Answer{Status: kept.status, Kind: w.Header().Get("Content-Type"), Body: kept.body.Bytes()}
		if secret {
			answer.Body = nil
		}
		end(func(ctx context.Context) error { return s.Keys.Finish(ctx, request, answer) })
	} else if kept.status != http.StatusInternalServerError {
		end(func(ctx context.Context) error { return s.Keys.Forget(ctx, request) })
	}
	kept.send()
}
