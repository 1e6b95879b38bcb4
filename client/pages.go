package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

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
