package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"sallyport/web/api"
)

// Stream calls the API and returns its answer to be read as it comes. The caller closes it.
func (c *Client) Stream(ctx context.Context, path string) (io.ReadCloser, error) {
	answer, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// Lines calls the API and reads its answer as JSON Lines of T.
func Lines[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return each[T](ctx, c, path, func() func(line []byte) ([]byte, bool) {
		return func(line []byte) ([]byte, bool) {
			// The last line of a stream that failed half-way tells why.
			var last struct {
				Problem json.RawMessage `json:"problem"`
			}
			if bytes.HasPrefix(line, []byte(`{"problem":`)) && json.Unmarshal(line, &last) == nil && len(last.Problem) > 0 {
				return last.Problem, true
			}
			return line, false
		}
	})
}

// Events calls the API and reads its answer as server-sent events with a T each, until it ends. Those without data are passed over.
func Events[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return each[T](ctx, c, path, func() func(line []byte) ([]byte, bool) {
		name := ""
		return func(line []byte) ([]byte, bool) {
			field, value, _ := bytes.Cut(line, []byte(": "))
			switch string(field) {
			case "": // the end of an event, or a comment
				name = ""
			case "event":
				name = string(value)
			case "data":
				if name == "" || name == "problem" {
					return value, name == "problem"
				}
			}
			return nil, false
		}
	})
}

// each calls the API and reads its answer line by line. What reading returns takes a line and says what stands in it, nothing or the
// JSON of a T, or of why there is no more.
func each[T any](ctx context.Context, c *Client, path string, reading func() func(line []byte) (found []byte, problem bool)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		body, err := c.Stream(ctx, path)
		if err != nil {
			yield(zero, err)
			return
		}
		defer body.Close()
		scanner := bufio.NewScanner(body)
		scanner.Buffer(make([]byte, 64<<10), maxLine)
		read := reading()
		for scanner.Scan() {
			found, problem := read(scanner.Bytes())
			if len(found) == 0 {
				continue
			}
			var v T
			var why api.Problem
			if problem {
				err = json.Unmarshal(found, &why)
			} else {
				err = json.Unmarshal(found, &v)
			}
			switch {
			case err != nil:
				yield(zero, fmt.Errorf("read the gateway's answer: %w", err))
				return
			case problem:
				yield(zero, refusalOf(&why))
				return
			case !yield(v, nil):
				return
			}
		}
		if err := scanner.Err(); err != nil {
			yield(zero, fmt.Errorf("the gateway's answer was cut short: %w", err))
		}
	}
}

// List calls the API for a list and reads all its pages. A refusal of the gateway's is returned as *refusal.Refusal.
func List[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	all := []T{}
	for path != "" {
		page, next, err := listPage[T](ctx, c, path)
		if err != nil {
			return nil, err
		}
		all, path = append(all, page...), next
	}
	return all, nil
}

func listPage[T any](ctx context.Context, c *Client, path string) (page []T, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	err = decode(answer.Body, &page)
	return page, nextPage(answer.Header.Get("Link")), err
}

// nextPage is the address of the next page in a Link header (RFC 8288) of the gateway's; one that leads elsewhere is none.
func nextPage(link string) string {
	address, rel, ok := strings.Cut(link, ">;")
	if !ok || !strings.HasPrefix(address, "<") || strings.TrimSpace(rel) != `rel="next"` {
		return ""
	}
	u, err := url.Parse(address[1:])
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(u.Path, "/v1/") {
		return ""
	}
	return u.RequestURI()
}
