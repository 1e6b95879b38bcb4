// Package guard finds out by PostgreSQL's own grammar whether a text of SQL does something that a role refuses: a guardrail
// against accidents.
//
// It promises to refuse what it cannot read, and to look into everything that the grammar has inside of a statement: common
// table expressions, EXPLAIN, COPY (…), PREPARE, cursors, rules, CREATE … AS. It cannot see what a statement makes the
// server do by itself: functions, triggers, rules, views, casts and operators of users, SQL that is put together at run
// time. A DO block is such a text and is refused whole. Who wants to do what is refused finds a way as long as their
// account may do it: privileges on the target enforce.
package guard

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	tree "github.com/pganalyze/pg_query_go/v6"
	parser "github.com/wasilibs/go-pgquery"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TextMost is how long a text may be to be looked at, in bytes; a longer one is refused.
const TextMost = 48 << 10

// Guard refuses statements of some classes. It is safe for concurrent use.
type Guard struct{ classes []string }

// New makes a Guard for classes of configs.Guardrails; nil is one that refuses nothing. The first Guard of a process takes
// a second or more, in which the parser is made ready.
func New(classes []string) *Guard {
	if len(classes) == 0 {
		return nil
	}
	_, _ = parse("select 1") // so that no statement waits for it; if it fails, statements are refused
	return &Guard{classes: classes}
}

// Refusal says why a text is refused.
type Refusal struct {
	// Class is one of configs.Guardrails, or "unreadable".
	Class string
	// What is refused, such as "DROP TABLE".
	What string
}

// Unreadable is the class of what can't be looked into.
const Unreadable = "unreadable"

func (r *Refusal) Error() string {
	if r.Class == Unreadable {
		return "this can't be looked into, and is refused where guardrails are on: " + r.What
	}
	return fmt.Sprintf("%s is refused by the guardrail %q", r.What, r.Class)
}

// Check returns a *Refusal, or nil where a text may pass.
func (g *Guard) Check(sql []byte) (refusal error) {
	if len(sql) > TextMost {
		return &Refusal{Unreadable, fmt.Sprintf("a text of %d bytes (the most is %d)", len(sql), TextMost)}
	}
	if !utf8.Valid(sql) {
		return &Refusal{Unreadable, "text that is not UTF-8"}
	}
	parsed, err := parse(string(sql))
	if err != nil {
		return &Refusal{Unreadable, err.Error()}
	}
	for _, statement := range parsed.GetStmts() {
		if r := g.walk(statement.ProtoReflect()); r != nil {
			return r
		}
	}
	return nil
}

// parse keeps a parser that fails on some text to that text.
func parse(sql string) (result *tree.ParseResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser failed: %v", p)
		}
	}()
	return parser.Parse(sql)
}

// walk looks at every node of a tree.
func (g *Guard) walk(m protoreflect.Message) *Refusal {
	if r := g.node(m.Interface()); r != nil {
		return r
	}
	var found *Refusal
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				if found = g.walk(list.Get(i).Message()); found != nil {
					break
				}
			}
		default:
			found = g.walk(value.Message())
		}
		return found == nil
	})
	return found
}

// refuse is a refusal if the class is on.
func (g *Guard) refuse(class, what string) *Refusal {
	if !slices.Contains(g.classes, class) {
		return nil
	}
	return &Refusal{class, what}
}

// node looks at one node.
func (g *Guard) node(m proto.Message) *Refusal {
	switch n := m.(type) {
	case *tree.DoStmt:
		return &Refusal{Unreadable, "a DO block"}
	case *tree.TruncateStmt:
		return g.refuse("truncate", "TRUNCATE")
	case *tree.UpdateStmt:
		if n.GetWhereClause() == nil {
			return g.refuse("update-without-where", "UPDATE without WHERE")
		}
	case *tree.DeleteStmt:
		if n.GetWhereClause() == nil {
			return g.refuse("delete-without-where", "DELETE without WHERE")
		}
	case *tree.CopyStmt:
		if n.GetIsProgram() {
			return g.refuse("copy-program", "COPY with PROGRAM")
		}
	case *tree.VariableSetStmt:
		return g.setting(n.GetName(), "SET "+n.GetName())
	case *tree.FuncCall:
		return g.call(n)
	}
	return g.command(m)
}

// command looks at statements that are told apart by their kind alone.
func (g *Guard) command(m proto.Message) *Refusal {
	kind := string(m.ProtoReflect().Descriptor().Name())
	verb, ok := strings.CutSuffix(kind, "Stmt")
	if !ok {
		return nil
	}
	switch verb {
	case "CreateRole", "AlterRole", "AlterRoleSet", "DropRole", "GrantRole", "ReassignOwned":
		if r := g.refuse("roles", words(verb)); r != nil {
			return r
		}
	}
	if strings.HasPrefix(verb, "Drop") {
		if r := g.refuse("drop", dropped(m, verb)); r != nil {
			return r
		}
	}
	if isDefinition(verb, m) {
		return g.refuse("ddl", words(verb))
	}
	return nil
}

// isDefinition reports whether a statement defines something. What exists only for the session does not count.
func isDefinition(verb string, m proto.Message) bool {
	switch n := m.(type) {
	case *tree.CreateStmt:
		return n.GetRelation().GetRelpersistence() != temporary
	case *tree.CreateTableAsStmt:
		return n.GetInto().GetRel().GetRelpersistence() != temporary
	case *tree.SelectStmt:
		return n.GetIntoClause() != nil && n.GetIntoClause().GetRel().GetRelpersistence() != temporary
	case *tree.ViewStmt:
		return n.GetView().GetRelpersistence() != temporary
	case *tree.CreateSeqStmt:
		return n.GetSequence().GetRelpersistence() != temporary
	}
	for _, beginning := range []string{"Create", "Alter", "Drop", "Define", "Rename", "Reindex", "Index", "Rule", "Grant", "Comment", "SecLabel", "ImportForeignSchema", "RefreshMatView", "ReassignOwned"} {
		if strings.HasPrefix(verb, beginning) {
			return true
		}
	}
	return verb == "View" || verb == "CompositeType"
}

// temporary is the persistence of what goes with the session.
const temporary = "t"

// setting looks at a change of a setting. Some decide who the session is, and some how its statements are read.
func (g *Guard) setting(name, what string) *Refusal {
	switch strings.ToLower(name) {
	case "role", "session_authorization":
		return g.refuse("roles", what)
	case "client_encoding", "standard_conforming_strings", "backslash_quote", "escape_string_warning":
		return &Refusal{Unreadable, what + ", which changes how statements are read"}
	}
	return nil
}

// call looks for set_config, which is SET by another name.
func (g *Guard) call(n *tree.FuncCall) *Refusal {
	names := n.GetFuncname()
	if len(names) == 0 || names[len(names)-1].GetString_().GetSval() != "set_config" {
		return nil
	}
	arguments := n.GetArgs()
	if len(arguments) > 0 {
		if name := arguments[0].GetAConst().GetSval().GetSval(); name != "" {
			return g.setting(name, "set_config of "+name)
		}
	}
	return &Refusal{Unreadable, "set_config of a name that is not written out"}
}

// dropped says what is dropped.
func dropped(m proto.Message, verb string) string {
	if n, ok := m.(*tree.DropStmt); ok {
		return "DROP " + strings.ReplaceAll(strings.TrimPrefix(n.GetRemoveType().String(), "OBJECT_"), "_", " ")
	}
	return words(verb)
}

// words makes "CREATE ROLE" of "CreateRole".
func words(name string) string {
	var b strings.Builder
	for i, c := range name {
		if i > 0 && 'A' <= c && c <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String())
}
