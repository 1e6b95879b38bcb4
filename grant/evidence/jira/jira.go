// Package jira reads issues of Jira (REST v3) as evidence, and writes comments on them.
//
// An issue is read directly, never searched for, since searching lags behind. What counts is the category of its status
// ("new", "indeterminate", "done"), which is not translated; and where an approval is asked for, not the state alone but the
// transition into it and who made it.
//
// Source: developer.atlassian.com, Jira Cloud platform REST API v3, issues and issue comments.
package jira

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/grant/evidence"
)

// Site is one Jira. Safe for concurrent use.
type Site struct {
	config configs.Jira
	people []configs.LinkedPerson
	who    Who
	client *http.Client
}

// Who is a linked person with the groups that they are in now: none where they may not sign in any more, or never did. asks is set where
// they are the one who asks for what evidence is about, by whichever of their identities, or has started the job that does.
type Who func(ctx context.Context, p configs.LinkedPerson, about evidence.About) (who authn.Identity, asks bool, err error)

// NewSite prepares; nothing is asked of it yet. who may be nil where no approval is looked for.
func NewSite(config configs.Jira, people []configs.LinkedPerson, who Who) (*Site, error) {
	client, err := evidence.Client(config.CA)
	if err != nil {
		return nil, fmt.Errorf("jira %s: %w", config.Name, err)
	}
	return &Site{config, people, who, client}, nil
}

// Open makes sources of a configuration's evidence that is read from Jira.
func Open(c *configs.Config, who Who) func(configs.Evidence) (evidence.Source, error) {
	return func(e configs.Evidence) (evidence.Source, error) {
		for _, j := range c.Approvals.Jira {
			if j.Name == e.Jira {
				s, err := NewSite(j, c.Approvals.People, who)
				return issues{s, e}, err
			}
		}
		return nil, fmt.Errorf("there is no site %q under approvals.jira", e.Jira)
	}
}

// issueKey bounds what is asked for.
var issueKey = regexp.MustCompile(`^([A-Z][A-Z0-9_]{1,20})-[1-9][0-9]{0,9}$`)

// Has reports whether a ticket is an issue of a project that counts.
func (s *Site) Has(ticket string) bool {
	m := issueKey.FindStringSubmatch(ticket)
	return m != nil && slices.Contains(s.config.Projects, m[1])
}

// account is a person as Jira says it.
type account struct {
	ID string `json:"accountId"`
}

// issue is what is read of one.
type issue struct {
	Key    string `json:"key"`
	Fields struct {
		Summary string `json:"summary"`
		Project struct {
			Key string `json:"key"`
		} `json:"project"`
		Status struct {
			ID       string `json:"id"`
			Name     string `json:"name"`
			Category struct {
				Key string `json:"key"`
			} `json:"statusCategory"`
		} `json:"status"`
		Assignee *account `json:"assignee"`
		Labels   []string `json:"labels"`
	} `json:"fields"`
	Changelog struct {
		Total     int      `json:"total"`
		Histories []change `json:"histories"`
	} `json:"changelog"`
}

// change is one entry of an issue's changelog.
type change struct {
	ID      string  `json:"id"`
	Author  account `json:"author"`
	Created string  `json:"created"`
	Items   []struct {
		Field string `json:"field"`
		To    string `json:"to"` // the status's id, which is the same in every language
	} `json:"items"`
}

// into reports whether a change moved the issue to a status.
func (c change) into(status string) bool {
	for _, item := range c.Items {
		if item.Field == "status" {
			return item.To == status
		}
	}
	return false
}

// request begins one to the site.
func (s *Site) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.config.URL, "/")+path, bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("the site's address is none")
	}
	token, err := secrets.Resolve(ctx, s.config.Token)
	if err != nil {
		return nil, err
	}
	if s.config.User != "" {
		r.SetBasicAuth(s.config.User, token)
	} else {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// issues is evidence that are issues.
type issues struct {
	site   *Site
	config configs.Evidence
}

// Read implements evidence.Source. Its data are key, project, status, category, summary, labels, assignee (the subject of who
// is linked to that account, else empty) and, where an approval is asked for, approver, approved_at and approved_by_change.
func (i issues) Read(ctx context.Context, about evidence.About) (evidence.Reading, error) {
	over := func(format string, args ...any) (evidence.Reading, error) {
		return evidence.Reading{Over: fmt.Sprintf(format, args...)}, nil
	}
	if about.Ticket == "" {
		return over("the request names no ticket")
	}
	if !i.site.Has(about.Ticket) {
		return over("%.40q is no issue of %s", about.Ticket, strings.Join(i.site.config.Projects, " or "))
	}
	r, err := i.site.request(ctx, http.MethodGet, "/rest/api/3/issue/"+url.PathEscape(about.Ticket)+"?fields=summary,status,assignee,project,labels&expand=changelog", nil)
	if err != nil {
		return evidence.Reading{}, err
	}
	var found issue
	switch status, err := evidence.Fetch(i.site.client, r, &found); {
	case err != nil:
		return evidence.Reading{}, err
	case status == http.StatusNotFound:
		return over("there is no issue %s", about.Ticket)
	case status != http.StatusOK:
		return evidence.Reading{}, fmt.Errorf("jira answered with status %d", status)
	}
	f := found.Fields
	switch {
	case found.Key != about.Ticket || f.Project.Key == "" || !strings.HasPrefix(found.Key, f.Project.Key+"-"): // it was moved elsewhere
		return over("%s is %s now", about.Ticket, found.Key)
	case f.Status.Category.Key == "done":
		return over("%s is closed (%s)", found.Key, f.Status.Name)
	case f.Status.Category.Key == "" || f.Status.ID == "":
		return evidence.Reading{}, errors.New("jira did not say how the issue stands")
	}
	labels := []any{}
	for _, l := range f.Labels {
		labels = append(labels, l)
	}
	data := map[string]any{
		"key": found.Key, "project": f.Project.Key, "status": f.Status.Name, "category": f.Status.Category.Key, "summary": f.Summary,
		"labels": labels, "assignee": "",
	}
	if f.Assignee != nil {
		if p, linked := i.site.person(f.Assignee.ID); linked {
			data["assignee"] = p.Subject
		}
	}
	if len(i.config.ApprovedStatus) == 0 {
		return evidence.Reading{Data: data}, nil
	}
	if !slices.Contains(i.config.ApprovedStatus, f.Status.Name) && !slices.Contains(i.config.ApprovedStatus, f.Status.ID) {
		return over("%s is %s, not %s", found.Key, f.Status.Name, strings.Join(i.config.ApprovedStatus, " or "))
	}
	return i.approved(ctx, found, data, about)
}

// approved adds who moved the issue to where it is.
func (i issues) approved(ctx context.Context, found issue, data map[string]any, about evidence.About) (evidence.Reading, error) {
	changes := found.Changelog.Histories
	if found.Changelog.Total > len(changes) { // the newest are those that count, and an issue's own list may not have them all
		var err error
		if changes, err = i.changes(ctx, found.Key, found.Changelog.Total); err != nil {
			return evidence.Reading{}, err
		}
	}
	var last change
	var at time.Time
	for _, c := range changes {
		for _, item := range c.Items {
			if item.Field != "status" {
				continue
			}
			t, err := time.Parse("2006-01-02T15:04:05.999-0700", c.Created)
			if err != nil {
				return evidence.Reading{}, errors.New("jira did not say when the issue was moved")
			}
			if newest := !t.Before(at); newest {
				last, at = c, t
			}
		}
	}
	status := found.Fields.Status
	no := func(format string, args ...any) (evidence.Reading, error) {
		return evidence.Reading{Over: fmt.Sprintf(format, args...)}, nil
	}
	if !last.into(status.ID) {
		return no("nobody has moved %s to %s", found.Key, status.Name)
	}
	person, linked := i.site.person(last.Author.ID)
	if !linked {
		return no("who moved %s to %s is linked to nobody here", found.Key, status.Name)
	}
	if i.site.who == nil {
		return evidence.Reading{}, errors.New("who may approve is not known here")
	}
	who, asks, err := i.site.who(ctx, person, about)
	switch {
	case err != nil:
		return evidence.Reading{}, err
	case asks:
		return no("%s was moved to %s by the one who asks", found.Key, status.Name)
	case !slices.ContainsFunc(who.Groups, func(g string) bool { return slices.Contains(i.config.ApprovedBy, g) }):
		return no("%s was moved to %s by somebody who is not in %s", found.Key, status.Name, strings.Join(i.config.ApprovedBy, " or "))
	}
	data["approver"], data["approved_at"], data["approved_by_change"] = person.Subject, at.UTC().Format(time.RFC3339), last.ID
	return evidence.Reading{Data: data}, nil
}

// changes reads the newest part of an issue's changelog.
func (i issues) changes(ctx context.Context, key string, total int) ([]change, error) {
	r, err := i.site.request(ctx, http.MethodGet, "/rest/api/3/issue/"+url.PathEscape(key)+"/changelog?maxResults=100&startAt="+strconv.Itoa(max(0, total-100)), nil)
	if err != nil {
		return nil, err
	}
	var page struct {
		Values []change `json:"values"`
	}
	status, err := evidence.Fetch(i.site.client, r, &page)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("jira answered with status %d", status)
	}
	return page.Values, err
}

// person is who is linked to an account.
func (s *Site) person(id string) (configs.LinkedPerson, bool) {
	for _, p := range s.people {
		if p.Jira != "" && p.Jira == id {
			return p, true
		}
	}
	return configs.LinkedPerson{}, false
}

// Gone is an answer that asking again won't mend.
type Gone struct{ Status int }

func (g Gone) Error() string { return fmt.Sprintf("jira answered with status %d", g.Status) }

// property is where a comment says what it is about, so that one that was written, but whose answer got lost, is found.
const property = "sallyport"

// Comment writes a comment under an id, unless there is one under that id already.
func (s *Site) Comment(ctx context.Context, key, id, text string) error {
	r, err := s.request(ctx, http.MethodGet, "/rest/api/3/issue/"+url.PathEscape(key)+"/comment?orderBy=-created&maxResults=50&expand=properties", nil)
	if err != nil {
		return err
	}
	var page struct {
		Comments []struct {
			Properties []struct {
				Key   string `json:"key"`
				Value struct {
					ID string `json:"id"`
				} `json:"value"`
			} `json:"properties"`
		} `json:"comments"`
	}
	if err := s.send(r, &page); err != nil {
		return err
	}
	for _, c := range page.Comments {
		for _, p := range c.Properties {
			if p.Key == property && p.Value.ID == id {
				return nil
			}
		}
	}
	// A document of Atlassian's: one paragraph of text, of which nothing is made a mention or a link.
	r, err = s.request(ctx, http.MethodPost, "/rest/api/3/issue/"+url.PathEscape(key)+"/comment", map[string]any{
		"body": map[string]any{"type": "doc", "version": 1, "content": []any{
			map[string]any{"type": "paragraph", "content": []any{map[string]any{"type": "text", "text": text}}},
		}},
		"properties": []any{map[string]any{"key": property, "value": map[string]any{"id": id}}},
	})
	if err != nil {
		return err
	}
	return s.send(r, nil)
}

// send is a request whose answer matters only if it is no success.
func (s *Site) send(r *http.Request, v any) error {
	answer, err := s.client.Do(r)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return err
	}
	defer answer.Body.Close()
	if after, ok := evidence.Patience(answer, time.Now()); ok {
		return evidence.Busy{After: after}
	}
	switch {
	case answer.StatusCode/100 == 2:
		if v == nil {
			return nil
		}
		return json.NewDecoder(http.MaxBytesReader(nil, answer.Body, 4<<20)).Decode(v)
	case answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusGone:
		return Gone{answer.StatusCode}
	}
	return fmt.Errorf("jira answered with status %d", answer.StatusCode)
}
