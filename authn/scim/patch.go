package scim

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// operation is one of a PATCH (RFC 7644, section 3.5.2), with one path: one without has been taken apart.
type operation struct {
	op   string // add, remove, replace
	path path
	// value is what was sent; nil for nothing.
	value json.RawMessage
}

// path is one attribute, in lower case, with a part of it or the one value of many that is meant: emails[type eq "work"].value.
type path struct{ attribute, where, is, sub string }

var paths = regexp.MustCompile(`^(?:` + regexp.QuoteMeta(schemaUser) + `:|` + regexp.QuoteMeta(schemaGroup) + `:)?([A-Za-z]+)(?:\[\s*([A-Za-z]+)\s+(?i:eq)\s+("(?:[^"\\]|\\.)*")\s*\])?(?:\.([A-Za-z]+))?$`)

// foreign are attributes of other schemas, of which nothing is kept.
const foreign = "urn:ietf:params:scim:schemas:extension:"

func parsePath(s string) (p path, ours bool, err error) {
	if len(s) > maxFilter {
		return p, false, wrong{"invalidPath", fmt.Sprintf("a path is longer than %d bytes", maxFilter)}
	}
	if len(s) >= len(foreign) && strings.EqualFold(s[:len(foreign)], foreign) {
		return p, false, nil
	}
	found := paths.FindStringSubmatch(s)
	if found == nil || found[3] != "" && json.Unmarshal([]byte(found[3]), &p.is) != nil {
		return p, false, wrong{"invalidPath", `a path names one attribute, such as active, name.givenName or members[value eq "…"]`}
	}
	p.attribute, p.where, p.sub = strings.ToLower(found[1]), strings.ToLower(found[2]), strings.ToLower(found[4])
	return p, true, nil
}

func readPatch(r *http.Request) ([]operation, error) {
	var sent struct {
		Operations []struct {
			Op    string
			Path  string
			Value json.RawMessage
		}
	}
	if err := read(r, &sent); err != nil {
		return nil, err
	}
	if n := len(sent.Operations); n == 0 || n > maxOperations {
		return nil, wrong{"invalidSyntax", fmt.Sprintf("a patch has between 1 and %d operations", maxOperations)}
	}
	var all []operation
	for _, one := range sent.Operations {
		op := strings.ToLower(one.Op) // Entra ID writes Add, Remove and Replace
		if op != "add" && op != "remove" && op != "replace" {
			return nil, wrong{"invalidSyntax", "op is add, remove or replace"}
		}
		parts := map[string]json.RawMessage{one.Path: one.Value}
		if one.Path == "" {
			parts = nil
			if op == "remove" {
				return nil, wrong{"noTarget", "remove needs a path"}
			}
			if json.Unmarshal(one.Value, &parts) != nil {
				return nil, wrong{"invalidValue", "without a path the value is an object of attributes"}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(parts)) { // the whole of an attribute before parts of it, each time
			value := parts[name]
			p, ours, err := parsePath(name)
			if err != nil {
				return nil, err
			}
			if ours {
				all = append(all, operation{op, p, value})
			}
		}
	}
	return all, nil
}

func patch(operations []operation, operate func(operation) error) error {
	for _, o := range operations {
		if err := operate(o); err != nil {
			return err
		}
	}
	return nil
}

// text sets to from the operation's value; remove empties it.
func (o operation) text(to *string) error {
	if o.op == "remove" {
		*to = ""
		return nil
	}
	return o.into(to)
}

func (o operation) into(to any) error {
	if len(o.value) == 0 || json.Unmarshal(o.value, to) != nil {
		return wrong{"invalidValue", "the value of " + o.path.attribute + " is not of its kind"}
	}
	return nil
}

// operate does one operation; those on attributes that are not kept do nothing.
func (p *Person) operate(o operation) error {
	var err error
	switch o.path.attribute + "." + o.path.sub {
	case "username.":
		err = o.text(&p.UserName)
	case "externalid.":
		err = o.text(&p.ExternalID)
	case "displayname.":
		err = o.text(&p.DisplayName)
	case "active.":
		var active truth // who is not said to be active any more is not
		if o.op != "remove" {
			err = o.into(&active)
		}
		p.Active = bool(active)
	case "name.":
		name := wireName{p.Formatted, p.GivenName, p.FamilyName}
		if o.op == "remove" {
			name = wireName{}
		} else {
			err = o.into(&name)
		}
		p.Formatted, p.GivenName, p.FamilyName = name.Formatted, name.GivenName, name.FamilyName
	case "name.formatted":
		err = o.text(&p.Formatted)
	case "name.givenname":
		err = o.text(&p.GivenName)
	case "name.familyname":
		err = o.text(&p.FamilyName)
	case "emails.value":
		err = o.text(&p.Email)
	case "emails.":
		var all []wireEmail
		if o.op != "remove" {
			err = o.into(&all)
		}
		p.Email = email(all)
	}
	if err != nil {
		return err
	}
	return p.check()
}

func (g *Group) operate(o operation) error {
	var err error
	switch o.path.attribute {
	case "displayname":
		err = o.text(&g.Name)
	case "externalid":
		err = o.text(&g.ExternalID)
	case "members":
		err = g.members(o)
	}
	if err != nil {
		return err
	}
	return g.check()
}

func (g *Group) members(o operation) error {
	if o.path.sub != "" || o.path.where != "" && (o.path.where != "value" || o.op != "remove") {
		return wrong{"invalidPath", `of members, members and members[value eq "…"] to remove are understood`}
	}
	var members []wireMember
	switch {
	case o.path.where != "":
		members = []wireMember{{Value: o.path.is}}
	case len(o.value) > 0 && string(o.value) != "null":
		if err := o.into(&members); err != nil {
			var one wireMember // Okta sends a single one as itself
			if o.into(&one) != nil {
				return err
			}
			members = []wireMember{one}
		}
	case o.op == "remove": // all of them
		g.Members = nil
		return nil
	default:
		return wrong{"invalidValue", "members are missing"}
	}
	switch o.op {
	case "remove": // only those that are named, by whichever way
		g.Members = slices.DeleteFunc(g.Members, func(m Member) bool {
			return slices.ContainsFunc(members, func(gone wireMember) bool { return gone.Value == m.ID })
		})
		return nil
	case "replace":
		g.Members = nil
	}
	g.add(members)
	return nil
}
