// Package scim speaks SCIM 2.0 (RFC 7643, RFC 7644) to a provider of people that provisions users and groups, as Entra ID and Okta do.
//
// It promises to take nothing that it does not understand for something else: a filter is one comparison, a path names one attribute,
// and what is neither is refused. Attributes that nothing here is decided by are left out, as section 3.3 of RFC 7644 allows, and no
// password is ever kept. There is no parser that recurses over what is sent, so that nothing can be nested too deeply.
package scim

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"sallyport/internal/refusal"
)

// Bounds of what is taken.
const (
	MaxBody       = 1 << 20
	maxFilter     = 512
	maxOperations = 1000
	maxMembers    = 10_000
	maxPage       = 200
	maxText       = 256
)

// Person is a user as the provider provisioned it.
type Person struct {
	ID, UserName, ExternalID string
	Active                   bool
	Body
	Created, Modified time.Time
}

// Body is what only people look at.
type Body struct {
	DisplayName, Formatted, GivenName, FamilyName, Email string
}

// Group is a group with its members.
type Group struct {
	ID, Name, ExternalID string
	Members              []Member
	Created, Modified    time.Time
}

// Member is one of them.
type Member struct{ ID, Display string }

// Query is what is looked for: all, or those of which one attribute has a value; Count from Start (0 is the first).
type Query struct {
	Attribute, Value string // attribute in lower case: id, username, externalid, displayname; "" for all
	Start, Count     int
}

// Directory keeps one provider's people and groups. Its refusals are told to the provider: NotFound, Conflict, Invalid, TooMany.
type Directory interface {
	People(ctx context.Context, q Query) (page []Person, all int, err error)
	// PutPerson makes one where id is empty, and else has change change the one that there is, all or nothing.
	PutPerson(ctx context.Context, id string, change func(*Person) error) (Person, error)
	// DeletePerson deletes the one that there is, unless check has something against it.
	DeletePerson(ctx context.Context, id string, check func(Person) error) error
	Groups(ctx context.Context, q Query) (page []Group, all int, err error)
	PutGroup(ctx context.Context, id string, change func(*Group) error) (Group, error)
	DeleteGroup(ctx context.Context, id string, check func(Group) error) error
}

// handler answers for one directory.
type handler struct {
	d    Directory
	base string
	log  *slog.Logger
}

// Handler serves a directory at base (…/scim/v2). Whoever reaches it has been proven to be the provider, and its body is bounded.
func Handler(d Directory, base string, log *slog.Logger) http.Handler {
	h := &handler{d, base, log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ServiceProviderConfig", h.config)
	mux.HandleFunc("GET /ResourceTypes", h.resourceTypes)
	mux.HandleFunc("GET /ResourceTypes/{id}", h.resourceTypes)
	mux.HandleFunc("GET /Schemas", h.schemas)
	mux.HandleFunc("GET /Schemas/{id}", h.schemas)
	mux.HandleFunc("GET /Users", h.people)
	mux.HandleFunc("GET /Users/{id}", h.person)
	mux.HandleFunc("POST /Users", h.putPerson)
	mux.HandleFunc("PUT /Users/{id}", h.putPerson)
	mux.HandleFunc("PATCH /Users/{id}", h.patchPerson)
	mux.HandleFunc("DELETE /Users/{id}", func(w http.ResponseWriter, r *http.Request) {
		h.gone(w, d.DeletePerson(r.Context(), r.PathValue("id"), func(p Person) error { return unchanged(r, p) }))
	})
	mux.HandleFunc("GET /Groups", h.groups)
	mux.HandleFunc("GET /Groups/{id}", h.group)
	mux.HandleFunc("POST /Groups", h.putGroup)
	mux.HandleFunc("PUT /Groups/{id}", h.putGroup)
	mux.HandleFunc("PATCH /Groups/{id}", h.patchGroup)
	mux.HandleFunc("DELETE /Groups/{id}", func(w http.ResponseWriter, r *http.Request) {
		h.gone(w, d.DeleteGroup(r.Context(), r.PathValue("id"), func(g Group) error { return unchanged(r, g) }))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		Fail(w, http.StatusNotFound, "", "there is nothing at this address")
	})
	return mux
}

func (h *handler) people(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "id", "username", "externalid", "displayname")
	if err != nil {
		h.fail(w, err)
		return
	}
	page, all, err := h.d.People(r.Context(), q)
	if err != nil {
		h.fail(w, err)
		return
	}
	resources := make([]any, 0, len(page))
	for _, p := range page {
		resources = append(resources, h.showPerson(p))
	}
	list(w, q, all, resources)
}

func (h *handler) person(w http.ResponseWriter, r *http.Request) {
	page, _, err := h.d.People(r.Context(), Query{Attribute: "id", Value: r.PathValue("id"), Count: 1})
	switch {
	case err != nil:
		h.fail(w, err)
	case len(page) == 0:
		h.fail(w, refusal.New(refusal.NotFound, "there is no such user"))
	default:
		show(w, r, http.StatusOK, page[0], h.showPerson(page[0]))
	}
}

func (h *handler) putPerson(w http.ResponseWriter, r *http.Request) {
	var sent wirePerson
	if err := read(r, &sent); err != nil {
		h.fail(w, err)
		return
	}
	h.keepPerson(w, r, sent.replace)
}

func (h *handler) patchPerson(w http.ResponseWriter, r *http.Request) {
	operations, err := readPatch(r)
	if err != nil {
		h.fail(w, err)
		return
	}
	h.keepPerson(w, r, func(p *Person) error { return patch(operations, p.operate) })
}

// keepPerson makes or changes the one that r is about.
func (h *handler) keepPerson(w http.ResponseWriter, r *http.Request, change func(*Person) error) {
	p, err := h.d.PutPerson(r.Context(), r.PathValue("id"), func(p *Person) error {
		if err := unchanged(r, *p); err != nil {
			return err
		}
		return change(p)
	})
	if err != nil {
		h.fail(w, err)
		return
	}
	show(w, r, h.made(w, r, "/Users/"+p.ID), p, h.showPerson(p))
}

func (h *handler) groups(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "id", "externalid", "displayname")
	if err != nil {
		h.fail(w, err)
		return
	}
	page, all, err := h.d.Groups(r.Context(), q)
	if err != nil {
		h.fail(w, err)
		return
	}
	resources := make([]any, 0, len(page))
	for _, g := range page {
		resources = append(resources, h.showGroup(g, r))
	}
	list(w, q, all, resources)
}

func (h *handler) group(w http.ResponseWriter, r *http.Request) {
	page, _, err := h.d.Groups(r.Context(), Query{Attribute: "id", Value: r.PathValue("id"), Count: 1})
	switch {
	case err != nil:
		h.fail(w, err)
	case len(page) == 0:
		h.fail(w, refusal.New(refusal.NotFound, "there is no such group"))
	default:
		show(w, r, http.StatusOK, page[0], h.showGroup(page[0], r))
	}
}

func (h *handler) putGroup(w http.ResponseWriter, r *http.Request) {
	var sent wireGroup
	if err := read(r, &sent); err != nil {
		h.fail(w, err)
		return
	}
	h.keepGroup(w, r, sent.replace)
}

func (h *handler) patchGroup(w http.ResponseWriter, r *http.Request) {
	operations, err := readPatch(r)
	if err != nil {
		h.fail(w, err)
		return
	}
	h.keepGroup(w, r, func(g *Group) error { return patch(operations, g.operate) })
}

func (h *handler) keepGroup(w http.ResponseWriter, r *http.Request, change func(*Group) error) {
	g, err := h.d.PutGroup(r.Context(), r.PathValue("id"), func(g *Group) error {
		if err := unchanged(r, *g); err != nil {
			return err
		}
		return change(g)
	})
	if err != nil {
		h.fail(w, err)
		return
	}
	show(w, r, h.made(w, r, "/Groups/"+g.ID), g, h.showGroup(g, r))
}

// made is the status of an answer to what made or changed the resource at that path, with where it is.
func (h *handler) made(w http.ResponseWriter, r *http.Request, path string) int {
	if r.Method != http.MethodPost {
		return http.StatusOK
	}
	w.Header().Set("Location", h.base+path)
	return http.StatusCreated
}

func (h *handler) gone(w http.ResponseWriter, err error) {
	if err != nil {
		h.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// wrong is a mistake that RFC 7644, section 3.12, has a word for.
type wrong struct{ kind, detail string }

func (w wrong) Error() string { return w.detail }

func (h *handler) fail(w http.ResponseWriter, err error) {
	var mistake wrong
	var large *http.MaxBytesError
	no := refusal.Of(err)
	switch {
	case errors.As(err, &large):
		Fail(w, http.StatusRequestEntityTooLarge, "", "the body is longer than "+strconv.Itoa(MaxBody)+" bytes")
	case errors.Is(err, errVersion):
		Fail(w, http.StatusPreconditionFailed, "", err.Error())
	case errors.As(err, &mistake):
		Fail(w, http.StatusBadRequest, mistake.kind, mistake.detail)
	case no == nil:
		h.log.Error("a request of a provider's directory failed", "err", err)
		Fail(w, http.StatusInternalServerError, "", "the gateway failed to do this; its log says why")
	case no.Code == refusal.NotFound:
		Fail(w, http.StatusNotFound, "", no.Message)
	case no.Code == refusal.Conflict:
		Fail(w, http.StatusConflict, "uniqueness", no.Message)
	case no.Code == refusal.TooMany:
		Fail(w, http.StatusBadRequest, "tooMany", no.Message)
	default:
		Fail(w, http.StatusBadRequest, "invalidValue", no.Message)
	}
}

// Fail answers with an error as RFC 7644, section 3.12, has it.
func Fail(w http.ResponseWriter, status int, kind, detail string) {
	body := map[string]any{"schemas": []string{"urn:ietf:params:scim:api:messages:2.0:Error"}, "status": strconv.Itoa(status), "detail": detail}
	if kind != "" {
		body["scimType"] = kind
	}
	reply(w, status, body)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/scim+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // an error is the client going away
}

func list(w http.ResponseWriter, q Query, all int, resources []any) {
	reply(w, http.StatusOK, map[string]any{
		"schemas": []string{"urn:ietf:params:scim:api:messages:2.0:ListResponse"}, "totalResults": all,
		"startIndex": q.Start + 1, "itemsPerPage": len(resources), "Resources": resources,
	})
}
