package scim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/internal/refusal"
)

const (
	schemaUser  = "urn:ietf:params:scim:schemas:core:2.0:User"
	schemaGroup = "urn:ietf:params:scim:schemas:core:2.0:Group"
)

// truth is a boolean; Entra ID also writes it as a text.
type truth bool

func (t *truth) UnmarshalJSON(data []byte) error {
	switch strings.ToLower(strings.Trim(string(data), `"`)) {
	case "true":
		*t = true
	case "false":
		*t = false
	default:
		return wrong{"invalidValue", "active is true or false"}
	}
	return nil
}

type wireName struct {
	Formatted  string `json:"formatted,omitempty"`
	GivenName  string `json:"givenName,omitempty"`
	FamilyName string `json:"familyName,omitempty"`
}

type wireEmail struct {
	Value   string `json:"value"`
	Type    string `json:"type,omitempty"`
	Primary truth  `json:"primary"`
}

type wirePerson struct {
	UserName    string
	ExternalID  string
	DisplayName string
	Active      *truth
	Name        wireName
	Emails      []wireEmail
}

type wireMember struct {
	Value   string `json:"value"`
	Display string `json:"display,omitempty"`
}

type wireGroup struct {
	DisplayName string
	ExternalID  string
	Members     []wireMember
}

// replace makes p what was sent. Who is not said to be active is: RFC 7643 leaves it open, and both Entra ID and Okta say it.
func (sent wirePerson) replace(p *Person) error {
	p.UserName, p.ExternalID, p.Active = sent.UserName, sent.ExternalID, sent.Active == nil || bool(*sent.Active)
	p.Body = Body{sent.DisplayName, sent.Name.Formatted, sent.Name.GivenName, sent.Name.FamilyName, email(sent.Emails)}
	return p.check()
}

// email is the primary one, else the first.
func email(all []wireEmail) string {
	for _, e := range all {
		if e.Primary {
			return e.Value
		}
	}
	if len(all) > 0 {
		return all[0].Value
	}
	return ""
}

func (p *Person) check() error {
	if p.UserName == "" {
		return wrong{"invalidValue", "userName is missing"}
	}
	return checkTexts(p.UserName, p.ExternalID, p.DisplayName, p.Formatted, p.GivenName, p.FamilyName, p.Email)
}

func (sent wireGroup) replace(g *Group) error {
	g.Name, g.ExternalID, g.Members = sent.DisplayName, sent.ExternalID, nil
	g.add(sent.Members)
	return g.check()
}

func (g *Group) add(members []wireMember) {
	for _, m := range members {
		g.Members = append(g.Members, Member{ID: m.Value})
	}
}

func (g *Group) check() error {
	if g.Name == "" {
		return wrong{"invalidValue", "displayName is missing"}
	}
	seen := map[string]bool{}
	g.Members = slices.DeleteFunc(g.Members, func(m Member) bool {
		again := seen[m.ID]
		seen[m.ID] = true
		return again
	})
	if len(g.Members) > maxMembers {
		return refusal.New(refusal.TooMany, "a group has %d members at the most", maxMembers)
	}
	return checkTexts(g.Name, g.ExternalID)
}

// checkTexts refuses what can't be kept whole: cut or changed, it might be somebody else's name.
func checkTexts(texts ...string) error {
	for _, s := range texts {
		if len(s) > maxText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return wrong{"invalidValue", fmt.Sprintf("a text is longer than %d bytes or not printable", maxText)}
		}
	}
	return nil
}

func (h *handler) meta(kind, id string, created, modified time.Time, resource any) map[string]any {
	return map[string]any{"resourceType": kind, "location": h.base + "/" + kind + "s/" + id, "version": version(resource), "created": created.Format(time.RFC3339), "lastModified": modified.Format(time.RFC3339)}
}

func (h *handler) showPerson(p Person) any {
	shown := map[string]any{"schemas": []string{schemaUser}, "id": p.ID, "userName": p.UserName, "active": p.Active, "meta": h.meta("User", p.ID, p.Created, p.Modified, p)}
	if p.ExternalID != "" {
		shown["externalId"] = p.ExternalID
	}
	if p.DisplayName != "" {
		shown["displayName"] = p.DisplayName
	}
	if name := (wireName{p.Formatted, p.GivenName, p.FamilyName}); name != (wireName{}) {
		shown["name"] = name
	}
	if p.Email != "" {
		shown["emails"] = []wireEmail{{p.Email, "work", true}}
	}
	return shown
}

func (h *handler) showGroup(g Group, r *http.Request) any {
	shown := map[string]any{"schemas": []string{schemaGroup}, "id": g.ID, "displayName": g.Name, "meta": h.meta("Group", g.ID, g.Created, g.Modified, g)}
	if g.ExternalID != "" {
		shown["externalId"] = g.ExternalID
	}
	if !strings.EqualFold(r.URL.Query().Get("excludedAttributes"), "members") {
		members := make([]wireMember, 0, len(g.Members))
		for _, m := range g.Members {
			members = append(members, wireMember{m.ID, m.Display})
		}
		shown["members"] = members
	}
	return shown
}

// read reads one JSON object.
func read(r *http.Request, v any) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return wrong{"invalidSyntax", "the body is not what it should be: " + clip(err.Error())}
	}
	return nil
}

// clip keeps an error from repeating much of what was sent.
func clip(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}

// comparison is the only filter that is understood.
var comparison = regexp.MustCompile(`^\s*(?:` + regexp.QuoteMeta(schemaUser) + `:|` + regexp.QuoteMeta(schemaGroup) + `:)?([A-Za-z]+)\s+(?i:eq)\s+("(?:[^"\\]|\\.)*")\s*$`)

// query reads filter, startIndex and count.
func query(r *http.Request, attributes ...string) (Query, error) {
	values := r.URL.Query()
	q := Query{Count: maxPage}
	if filter := values.Get("filter"); filter != "" {
		if len(filter) > maxFilter {
			return q, wrong{"invalidFilter", fmt.Sprintf("the filter is longer than %d bytes", maxFilter)}
		}
		found := comparison.FindStringSubmatch(filter)
		if found == nil || !slices.Contains(attributes, strings.ToLower(found[1])) || json.Unmarshal([]byte(found[2]), &q.Value) != nil {
			return q, wrong{"invalidFilter", `a filter is one comparison, such as userName eq "a@example.com"; of ` + strings.Join(attributes, ", ")}
		}
		q.Attribute = strings.ToLower(found[1])
	}
	for name, to := range map[string]*int{"startIndex": &q.Start, "count": &q.Count} {
		if values.Get(name) == "" {
			continue
		}
		n, err := strconv.Atoi(values.Get(name))
		if err != nil {
			return q, wrong{"invalidValue", name + " is not a number"}
		}
		*to = n
	}
	if values.Get("startIndex") != "" {
		q.Start--
	}
	q.Start, q.Count = max(q.Start, 0), min(max(q.Count, 0), maxPage)
	return q, nil
}
