package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile bounds a configuration file; a larger one is a mistake.
const maxFile = 16 << 20

// Problem is one thing wrong in a configuration file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from 1; 0 if it is about the file as a whole
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

func (p Problem) String() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems is the error of Load: all that is wrong, in the order of the files.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads a configuration file and the target and policy files it names, fills in defaults, makes relative paths
// absolute and validates the whole. The error is Problems unless the file can't be read at all.
func Load(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	l := &loader{}
	config := &Config{File: path}
	main := l.file(path, config)
	if main == nil {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			l.problems[0].Message += "; name another with -c, or write a commented one: sallyport init DIRECTORY"
		}
		return nil, l.problems
	}
	l.origin(config.Targets, main, "targets", &l.targets)
	l.origin(config.Policies, main, "policies", &l.policies)
	l.origin(config.Roles, main, "roles", &l.roles)
	for i, name := range config.TargetFiles {
		var more struct {
			Targets []Target `yaml:"targets"`
		}
		if f := l.included(main, fmt.Sprintf("$.target_files[%d]", i), name, &more); f != nil {
			l.origin(more.Targets, f, "targets", &l.targets)
			config.Targets = append(config.Targets, more.Targets...)
		}
	}
	for i, name := range config.PolicyFiles {
		var more struct {
			Policies []Policy `yaml:"policies"`
			Roles    []Role   `yaml:"roles"`
		}
		if f := l.included(main, fmt.Sprintf("$.policy_files[%d]", i), name, &more); f != nil {
			l.origin(more.Policies, f, "policies", &l.policies)
			config.Policies = append(config.Policies, more.Policies...)
			l.origin(more.Roles, f, "roles", &l.roles)
			config.Roles = append(config.Roles, more.Roles...)
		}
	}
	config.policyPlaces = l.policies
	config.main = main
	config.setDefaults()
	config.resolvePaths()
	if len(l.problems) == 0 {
		l.validate(main, config)
	}
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return config, nil
}

// file is one parsed YAML file.
type file struct {
	path string
	tree *ast.File
}

// place is where one target, policy or role was written.
type place struct {
	file *file
	path string // a YAML path: $.targets[3]
}

type loader struct {
	problems Problems
	targets  []place // of Config.Targets, by index
	policies []place
	roles    []place
}

// origin notes where each element of a list came from.
func (l *loader) origin(list any, f *file, key string, places *[]place) {
	for i := range reflect.ValueOf(list).Len() {
		*places = append(*places, place{f, fmt.Sprintf("$.%s[%d]", key, i)})
	}
}

// file reads one file into v; nil if something is wrong with it, which is then noted.
func (l *loader) file(path string, v any) *file {
	whole := func(message string) *file {
		l.problems = append(l.problems, Problem{File: path, Message: message})
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return whole("can't be read: " + reason(err))
	}
	if info.Size() > maxFile {
		return whole("is larger than 16 MiB")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return whole("can't be read: " + reason(err))
	}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		l.yamlError(path, err)
		return nil
	}
	f := &file{path, tree}
	if len(tree.Docs) != 1 || tree.Docs[0].Body == nil {
		return whole("expected one YAML document with the keys described in docs/install.md")
	}
	before := len(l.problems)
	l.unknownKeys(f, tree.Docs[0].Body, reflect.TypeOf(v).Elem(), "")
	if len(l.problems) > before {
		return nil
	}
	if err := yaml.NodeToValue(tree.Docs[0].Body, v, customTypes...); err != nil {
		l.yamlError(path, err)
		return nil
	}
	return f
}

// included is file for one that another file names, relative to that one.
func (l *loader) included(by *file, at, name string, v any) *file {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(by.path), name)
	}
	if _, err := os.Stat(path); err != nil {
		l.at(by, at, "%s can't be read: %s", name, reason(err))
		return nil
	}
	return l.file(path, v)
}

var customTypes = []yaml.DecodeOption{
	yaml.CustomUnmarshaler(func(d *Duration, text []byte) (err error) {
		*d, err = ParseDuration(unquote(text))
		return err
	}),
	yaml.CustomUnmarshaler(func(v *Values, text []byte) error {
		var one string
		if yaml.Unmarshal(text, &one) == nil {
			*v = Values{one}
			return nil
		}
		var list []string
		if err := yaml.Unmarshal(text, &list); err != nil {
			return fmt.Errorf("expected a text or a list of texts")
		}
		*v = list
		return nil
	}),
	yaml.CustomUnmarshaler(func(b *ByteSize, text []byte) (err error) {
		*b, err = ParseByteSize(unquote(text))
		return err
	}),
}

func unquote(text []byte) string { return strings.Trim(strings.TrimSpace(string(text)), `"'`) }

// unknownKeys notes every key that the type has no field for, and says which it has.
func (l *loader) unknownKeys(f *file, node ast.Node, t reflect.Type, where string) {
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, value := range n.Values {
			l.unknownKey(f, value, t, where)
		}
	case *ast.MappingValueNode: // a mapping of one key
		l.unknownKey(f, n, t, where)
	case *ast.SequenceNode:
		if t.Kind() == reflect.Slice {
			for _, element := range n.Values {
				l.unknownKeys(f, element, t.Elem(), where)
			}
		}
	}
}

func (l *loader) unknownKey(f *file, pair *ast.MappingValueNode, t reflect.Type, where string) {
	if t.Kind() != reflect.Struct {
		return
	}
	key := pair.Key.GetToken().Value
	var known []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == key {
			l.unknownKeys(f, pair.Value, t.Field(i).Type, where+key+".")
			return
		}
		if name != "-" {
			known = append(known, name)
		}
	}
	slices.Sort(known)
	inside := "here"
	if where != "" {
		inside = "in " + strings.TrimSuffix(where, ".")
	}
	l.token(f.path, pair.Key.GetToken(), "unknown key %q; %s the keys are: %s", key, inside, strings.Join(known, ", "))
}

// at notes a problem with the node at a YAML path, or its nearest parent that is written in the file.
func (l *loader) at(f *file, path, format string, args ...any) {
	for at := path; ; {
		if p, err := yaml.PathString(at); err == nil {
			if node, err := p.FilterFile(f.tree); err == nil && node != nil {
				l.token(f.path, firstToken(node), format, args...)
				return
			}
		}
		cut := strings.LastIndexAny(at, ".[")
		if cut <= 0 {
			l.problems = append(l.problems, Problem{File: f.path, Message: fmt.Sprintf(format, args...)})
			return
		}
		at = at[:cut]
	}
}

// firstToken is where a node begins: for a mapping its first key, not its first colon.
func firstToken(node ast.Node) *token.Token {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return node.GetToken()
}

func (l *loader) token(path string, t *token.Token, format string, args ...any) {
	problem := Problem{File: path, Message: fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		problem.Line, problem.Column = t.Position.Line, t.Position.Column
	}
	l.problems = append(l.problems, problem)
}

// yamlError notes an error of the YAML library with its place.
func (l *loader) yamlError(path string, err error) {
	if placed, ok := errors.AsType[yaml.Error](err); ok {
		l.token(path, placed.GetToken(), "%s", placed.GetMessage())
		return
	}
	l.problems = append(l.problems, Problem{File: path, Message: err.Error()})
}

// reason is an error of the file system without the path, which stands beside it already.
func reason(err error) string {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}
