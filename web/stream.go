package web

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// The content types of streams.
const (
	jsonLines = "application/jsonl"
	castType  = "application/x-asciicast"
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
func handleStream[I any](s *server, op huma.Operation, line any, do func(ctx context.Context, who caller, in *I) (*stream, error)) {
	op.Security = []map[string][]string{{bearerScheme: {}}}
	op.Responses = map[string]*huma.Response{"200": {Description: "The stream.", Content: content(s, line)}}
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

// send writes the stream, giving the client time for each piece rather than for the whole.
func (s *server) send(ctx context.Context, operation string, w http.ResponseWriter, out *stream) {
	w.Header().Set("Content-Type", out.contentType)
	buffered := bufio.NewWriterSize(&patient{w: w, control: http.NewResponseController(w)}, 32<<10)
	err := out.write(ctx, buffered)
	if err != nil && out.contentType == jsonLines {
		// The reader learns why its stream ends before its time.
		json.NewEncoder(buffered).Encode(map[string]*api.Problem{"problem": s.fail(operation, err)})
	} else if err != nil {
		s.fail(operation, err)
	}
	if flushed := buffered.Flush(); err != nil || flushed != nil {
		panic(http.ErrAbortHandler)
	}
}

// patient moves the write deadline on with every write.
type patient struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, p.control.Flush()
}

// lines is a stream of JSON Lines. The first element is taken at once, so that an error which comes before anything
// else is a problem with a status.
func lines[T any](all iter.Seq2[T, error]) (*stream, error) {
	next, stop := iter.Pull2(all)
	first, err, more := next()
	if err != nil {
		stop()
		return nil, err
	}
	return &stream{contentType: jsonLines, write: func(_ context.Context, w io.Writer) error {
		defer stop()
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		for v := first; more; {
			if err := encoder.Encode(v); err != nil {
				return err
			}
			if v, err, more = next(); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// content describes a stream for the API's description: lines of that type, and whatever else the operation offers.
func content(s *server, line any) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{jsonLines: {Schema: s.schema(line)}}
}
