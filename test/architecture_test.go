// Package test holds the house's own rules as tests: which room may import which, and that only the one gate reaches out.
// The black-box tests are in the folders below.
package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms from left to right: a room imports only rooms to its left, and rooms of one place never each other (DESIGN.md,
// section 3).
var rooms = [][]string{
	{"configs"},
	{"internal/refusal"},
	{"internal/store"},
	{"recorder"},
	{"authn"},
	{"grant"},
	{"session"},
	{"protocols/postgres", "protocols/ssh"},
	{"proxy"},
	{"web"},
	{"client"},
	{"internal/telemetry"},
	{"internal/demo"},
	{"cmd"},
}

// exceptions are rooms that may use less than their place allows, by the whole list of what they may import.
var exceptions = map[string][]string{
	"configs":                       {},
	"proxy":                         {"configs", "internal/refusal"},            // knows no grants, no recording
	"client":                        {"configs", "internal/refusal", "web/api"}, // the user's side: the API's types and nothing else
	"recorder/format":               {},                                         // what the auditor's binary stands on
	"recorder/disk":                 {},
	"recorder/wal":                  {"recorder/disk"},
	"recorder/verify":               {"recorder/disk", "recorder/format", "recorder/transparency", "recorder/wal"}, // the auditor's binary
	"recorder/transparency":         {"recorder/format"},                                                           // what it stands on too
	"recorder/transparency/ledger":  {"recorder/disk", "recorder/transparency"},
	"recorder/transparency/witness": {"recorder/disk", "recorder/transparency"},
	"web/live":                      {"recorder/item", "recorder/terminal", "web/api", "web/sse"},        // who may watch is decided elsewhere
	"web/welcome":                   {"authn", "internal/refusal", "web/api"},                            // public, so it can tell no more
	"web/api":                       {"configs", "internal/refusal", "recorder/format", "recorder/item"}, // plain types
}

// source is one Go file of the repository, without tests.
type source struct {
	path   string // slash-separated, from the root
	folder string
	file   *ast.File
}

func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	var all []source
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		all = append(all, source{path: relative, folder: relative[:max(0, strings.LastIndexByte(relative, '/'))], file: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d source files were found: is this the repository?", len(all))
	}
	return files, all
}

// room finds the room that a folder belongs to, and its place.
func room(folder string) (name string, place int) {
	for i, same := range rooms {
		for _, r := range same {
			if folder == r || strings.HasPrefix(folder, r+"/") {
				return r, i
			}
		}
	}
	return "", -1
}

// exception is the list of the deepest folder that has one.
func exception(folder string) ([]string, bool) {
	for f := folder; f != "."; f = filepath.ToSlash(filepath.Dir(f)) {
		if list, ok := exceptions[f]; ok {
			return list, true
		}
	}
	return nil, false
}

// imported are the folders of this module that a file imports.
func (s source) imported() []string {
	var folders []string
	for _, spec := range s.file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value) // the parser has read it
		if folder, ours := strings.CutPrefix(path, "sallyport/"); ours {
			folders = append(folders, folder)
		}
	}
	return folders
}

func TestRoomsImportOnlyToTheLeft(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		from, place := room(s.folder)
		if from == "" {
			if !strings.HasPrefix(s.folder, "test") && !strings.HasPrefix(s.folder, "internal/tools") {
				t.Errorf("%s stands in no room of the table; give it one here and in the design", s.path)
			}
			continue
		}
		list, limited := exception(s.folder)
		for _, folder := range s.imported() {
			to, its := room(folder)
			switch {
			case to == from && !limited:
			case limited && (slices.Contains(list, folder) || strings.HasPrefix(folder, s.folder)):
			case limited:
				t.Errorf("%s imports %s; it may import %s", s.path, folder, strings.Join(list, ", "))
			case to == "" || its >= place:
				t.Errorf("%s imports %s, which is not to the left of %s", s.path, folder, from)
			case from == "web" && strings.HasPrefix(to, "protocols/"):
				t.Errorf("%s imports %s; the HTTP face knows no protocols", s.path, folder)
			}
		}
	}
}

// auditors are what the auditor's binary is made of.
var auditors = []string{"recorder/disk", "recorder/format", "recorder/transparency", "recorder/verify", "recorder/wal"}

// TestTheAuditorsRoomsStandAlone: what the auditor's binary is made of knows nothing of the gateway.
func TestTheAuditorsRoomsStandAlone(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		if !slices.Contains(auditors, s.folder) && s.folder != "cmd/sallyport-verify" {
			continue
		}
		for _, folder := range s.imported() {
			if !slices.Contains(auditors, folder) {
				t.Errorf("%s imports %s", s.path, folder)
			}
		}
	}
}

// dials are the ways out, by package.
var dials = map[string][]string{
	"net":                     {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer"},
	"crypto/tls":              {"Dial", "DialWithDialer", "Dialer"},
	"golang.org/x/crypto/ssh": {"Dial"},
}

// mayDial are the rooms outside the gate that reach something that is no target: the users' side, and the demo's
// caretaker. The provider and webhooks are reached with net/http, which is not a dial of ours.
var mayDial = []string{"client", "internal/demo", "test"}

// TestOnlyTheGateDials: in the gateway nothing but session/gate.go opens a connection (DESIGN.md, section 3).
func TestOnlyTheGateDials(t *testing.T) {
	files, all := sources(t)
	gates := 0
	for _, s := range all {
		if slices.ContainsFunc(mayDial, func(r string) bool { return s.folder == r || strings.HasPrefix(s.folder, r+"/") }) {
			continue
		}
		local := make(map[string][]string) // name in this file → its dials
		for _, spec := range s.file.Imports {
			path, _ := strconv.Unquote(spec.Path.Value) // the parser has read it
			forbidden, dialling := dials[path]
			if !dialling {
				continue
			}
			name := path[strings.LastIndexByte(path, '/')+1:]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			if name == "." {
				t.Errorf("%s imports %s without a name", s.path, path)
			}
			local[name] = forbidden
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, ok := selector.X.(*ast.Ident)
			if !ok || !slices.Contains(local[of.Name], selector.Sel.Name) {
				return true
			}
			if s.folder == "session" {
				gates++
				if s.path != "session/gate.go" {
					t.Errorf("%s: %s.%s stands outside the file of the gate", files.Position(n.Pos()), of.Name, selector.Sel.Name)
				}
				return true
			}
			t.Errorf("%s: %s.%s: only session reaches out", files.Position(n.Pos()), of.Name, selector.Sel.Name)
			return true
		})
	}
	if gates == 0 {
		t.Error("no dial was found in session/gate.go: this test sees nothing")
	}
}

// TestNoRoomForEverything: a package called util is one that nobody has thought about.
func TestNoRoomForEverything(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		if name := s.file.Name.Name; slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, name) {
			t.Errorf("%s is in package %s", s.path, name)
		}
	}
}

// TestEveryRoomIntroducesItself: a room has a file named after it that a newcomer reads first, with a package comment.
func TestEveryRoomIntroducesItself(t *testing.T) {
	_, all := sources(t)
	for _, same := range rooms[:len(rooms)-1] {
		for _, r := range same {
			first := r + "/" + r[strings.LastIndexByte(r, '/')+1:] + ".go"
			i := slices.IndexFunc(all, func(s source) bool { return s.path == first })
			if i < 0 {
				if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(r))); err == nil {
					t.Errorf("room %s has no %s", r, first)
				}
				continue
			}
			if all[i].file.Doc.Text() == "" {
				t.Errorf("%s has no package comment", first)
			}
		}
	}
}
