package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/sse"
)

// The content types of streams.
const (
	jsonLines = "application/jsonl"
	oneJSON   = "application/json"
	asciicast = "application/x-asciicast"
	plainText = "text/plain; charset=utf-8"
)

// stream is an answer of any length. Write produces it; an error cuts the connection, so that nobody takes what they
// got for the whole.
type stream struct {
	contentType string
	write       func(ctx context.Context, w io.Writer) error
}

// handleStream registers an operation whose answer is a stream. The handler decides (permission, audit) before the
// first byte; its errors leave as problems.
func handleStream[I any](s *server, op huma.Operation, content map[string]*huma.MediaType, do func(ctx context.Context, who caller, in *I) (*stream, error)) {
	op.Security = []map[string][]string{{bearerScheme: {}}}
	op.Responses = map[string]*huma.Response{"200": {Description: "The stream.", Content: content}}
	op.Middlewares = append(op.Middlewares, unhurried)
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		who, ok := ctx.Value(callerKey{}).(caller)
		if !ok {
			return nil, problem(refusal.New(refusal.NotAuthenticated, "you are not signed in"))
		}
		out, err := do(ctx, who, in)
		if err != nil {
			return nil, s.fail(op.OperationID, err)
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			_, w := humago.Unwrap(hctx)
			s.send(ctx, op.OperationID, w, out)
		}}, nil
	})
}

// send writes the stream, giving the client time for each piece rather than for the whole. What goes wrong before
// anything was sent is an answer of its own.
func (s *server) send(ctx context.Context, operation string, w http.ResponseWriter, out *stream) {
	w.Header().Set("Content-Type", out.contentType)
	to := &patient{w: w, control: http.NewResponseController(w)}
	buffered := bufio.NewWriterSize(to, 32<<10)
	err := out.write(ctx, buffered)
	if err != nil {
		why := s.fail(operation, err)
		if !to.begun && (buffered.Buffered() == 0 || out.contentType != jsonLines) {
			write(w, why)
			return
		}
		switch out.contentType {
		case sse.ContentType:
			_ = sse.Write(buffered, "problem", "", why)
		case jsonLines:
			// The reader learns why the stream ends before its time.
			_ = json.NewEncoder(buffered).Encode(map[string]*api.Problem{"problem": why}) // Flush finds out too
		}
	}
	if flushed := buffered.Flush(); err != nil || flushed != nil {
		panic(http.ErrAbortHandler)
	}
}

// unhurried takes the deadlines off an answer whose first byte may take long to find: it ends when the client goes away.
func unhurried(ctx huma.Context, next func(huma.Context)) {
	_, w := humago.Unwrap(ctx)
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
		panic(err) // a server that has no deadlines is not one of ours
	}
	next(ctx)
}

// patient gives each piece of an answer its own time to be read in.
type patient struct {
	w       io.Writer
	control *http.ResponseController
	begun   bool
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	p.begun = true
	n, err := p.w.Write(b)
	if err != nil {
		return n, err
	}
	if err := p.control.Flush(); err != nil {
		return n, err
	}
	return n, p.control.SetWriteDeadline(time.Time{})
}

// lines is a stream of JSON Lines.
func lines[T any](all iter.Seq2[T, error]) *stream {
	return &stream{contentType: jsonLines, write: func(_ context.Context, w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		for v, err := range all {
			if err != nil {
				return err
			}
			if err := encoder.Encode(v); err != nil {
				return err
			}
		}
		return nil
	}}
}

// linesOf is lines for what could be opened.
func linesOf[T any](all iter.Seq2[T, error], err error) (*stream, error) {
	if err != nil {
		return nil, err
	}
	return lines(all), nil
}

// media describes a stream's lines, or its only value.
func (s *server) media(v any) *huma.MediaType {
	t := reflect.TypeOf(v)
	return &huma.MediaType{Schema: s.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())}
}
