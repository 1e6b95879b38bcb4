package sets

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sallyport/configs"
)

// Change is one thing that two sets of policies have differently, for people who read it before they confirm.
type Change struct {
	What   string // "policy deploy"
	Field  string // as in the file, such as approve.groups; empty: the whole
	Before string // empty: it was not there
	After  string // empty: it is not there any more
}

// Bounds on what of a difference is kept for people. The change itself is known by its hash, whatever is shown of it.
const (
	mostChanges = 400
	mostShown   = 2000 // bytes of a value
)

// changes lists what is different, field by field.
func changes(old, now Set) (all []Change) {
	note := func(what string, was, is map[string]string) {
		fields := map[string]string{} // either may be nil: one that is new, or gone
		maps.Copy(fields, was)
		maps.Copy(fields, is)
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			if was[field] != is[field] {
				all = append(all, Change{what, field, shown(was[field]), shown(is[field])})
			}
		}
	}
	named(old.Policies, now.Policies, "policy ", func(p configs.Policy) string { return p.Name }, note)
	named(old.Roles, now.Roles, "role ", func(r configs.Role) string { return r.Name }, note)
	named(old.Evidence, now.Evidence, "evidence ", func(e configs.Evidence) string { return e.Name }, note)
	named(old.Targets, now.Targets, "target ", func(t Target) string { return t.Name }, note)
	all = append(all, entries("permissions", old.Permissions, now.Permissions)...)
	all = append(all, entries("approvals.people", old.People, now.People)...)
	if old.Confirm != now.Confirm {
		all = append(all, Change{"policy_changes", "confirm", fmt.Sprint(old.Confirm), fmt.Sprint(now.Confirm)})
	}
	if !orderKept(old.Policies, now.Policies) {
		order := func(list []configs.Policy) string {
			var names []string
			for _, p := range list {
				names = append(names, p.Name)
			}
			return shown(strings.Join(names, ", "))
		}
		all = append(all, Change{What: "the order of the policies", Before: order(old.Policies), After: order(now.Policies)})
	}
	if len(all) > mostChanges {
		left := len(all) - mostChanges
		all = append(all[:mostChanges], Change{What: "and more", After: fmt.Sprintf("%d further differences; read them where the files are kept", left)})
	}
	return all
}

// entries are those that only one of two lists has, of what has no names.
func entries[T any](what string, old, now []T) (all []Change) {
	lines := func(list []T) (texts []string) {
		for _, x := range list {
			texts = append(texts, line(fieldsOf(x)))
		}
		return texts
	}
	was, is := lines(old), lines(now)
	for _, text := range was {
		if !slices.Contains(is, text) {
			all = append(all, Change{What: what, Before: shown(text)})
		}
	}
	for _, text := range is {
		if !slices.Contains(was, text) {
			all = append(all, Change{What: what, After: shown(text)})
		}
	}
	return all
}

// named notes the fields of what two lists have of one name.
func named[T any](old, now []T, kind string, name func(T) string, note func(what string, was, is map[string]string)) {
	was, is := byName(old, name), byName(now, name)
	for _, n := range names(was, is) {
		var before, after map[string]string
		if x, had := was[n]; had {
			before = fieldsOf(x)
		}
		if x, has := is[n]; has {
			after = fieldsOf(x)
		}
		note(kind+n, before, after)
	}
}

// fieldsOf are a value's fields by their names in the file, those that say something, as text. Where secrets are read is no part
// of it.
func fieldsOf(v any) map[string]string {
	fields := map[string]string{}
	collect("", reflect.ValueOf(v), fields)
	return fields
}

func collect(path string, v reflect.Value, fields map[string]string) {
	if v.IsZero() {
		return
	}
	if _, secret := v.Interface().(configs.SecretRef); secret {
		return
	}
	if s, says := v.Interface().(fmt.Stringer); says {
		fields[path] = s.String()
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.Elem().Kind() != reflect.Struct {
			fields[path] = fmt.Sprint(v.Elem().Interface())
			return
		}
		collect(path, v.Elem(), fields)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			if path != "" {
				name = path + "." + name
			}
			collect(name, v.Field(i), fields)
		}
	case reflect.Slice:
		var texts []string
		for i := range v.Len() {
			one := map[string]string{}
			collect("", v.Index(i), one)
			texts = append(texts, line(one))
		}
		fields[path] = strings.Join(texts, ", ")
	case reflect.Map:
		var texts []string
		for _, key := range v.MapKeys() {
			texts = append(texts, fmt.Sprintf("%v: %v", key.Interface(), v.MapIndex(key).Interface()))
		}
		slices.Sort(texts)
		fields[path] = strings.Join(texts, ", ")
	default:
		fields[path] = fmt.Sprint(v.Interface())
	}
}

// line is a value of several fields on one.
func line(fields map[string]string) string {
	if text, plain := fields[""]; plain {
		return text
	}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		texts = append(texts, name+" "+fields[name])
	}
	return strings.Join(texts, "; ")
}

func shown(text string) string {
	if len(text) <= mostShown {
		return text
	}
	return strings.ToValidUTF8(text[:mostShown], "") + " …"
}
