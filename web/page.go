package web

import (
	"net/url"

	"github.com/danielgtaylor/huma/v2"
)

// mostListed is how many things one answer lists.
const mostListed = 10_000

// Page is which part of a list somebody asks for. Lists go by key, so that a page costs what it holds, wherever it is in the
// list, and nothing is left out or told twice because something was added meanwhile.
type Page struct {
	Before string `query:"before" maxLength:"64" doc:"An id: only older ones. The last id of one page asks for the next, as the Link header does."`
	Limit  int    `query:"limit" minimum:"0" maximum:"10000" doc:"How many at most; 0: 10,000."`

	address url.URL
}

// Resolve keeps the address, for the next page's.
func (p *Page) Resolve(ctx huma.Context) []error {
	p.address = ctx.URL()
	return nil
}

func (p *Page) limit() int {
	if p.Limit == 0 {
		return mostListed
	}
	return p.Limit
}

// next is the address of the next page (RFC 8288), after the thing with that id.
func (p *Page) next(id string) string {
	q := p.address.Query()
	q.Set("before", id)
	return "<" + p.address.EscapedPath() + "?" + q.Encode() + `>; rel="next"`
}

// listed is a part of a list, newest first.
type listed[T any] struct {
	Link string `header:"Link" doc:"The next page, where there is one (RFC 8288)."`
	Body []T
}
