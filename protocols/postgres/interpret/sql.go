package interpret

import "strings"

// token is a piece of SQL.
type token struct {
	kind       tokenKind
	start, end int // in the text
}

type tokenKind byte

const (
	tokenEnd     tokenKind = iota
	tokenWord              // a keyword or name
	tokenQuoted            // "a name"
	tokenLiteral           // 'text', E'text', U&'text', B'…'
	tokenDollar            // $tag$text$tag$
	tokenOther             // one byte of anything else
)

// scan finds the next token at or after pos, past white space and comments. It follows the server's scan.l closely
// enough to know where literals and comments end; a backslash escapes in E'…' only (standard_conforming_strings).
func scan(sql string, pos int) token {
	pos = skipBlank(sql, pos)
	if pos >= len(sql) {
		return token{tokenEnd, len(sql), len(sql)}
	}
	c := sql[pos]
	switch {
	case c == '\'':
		return token{tokenLiteral, pos, quoted(sql, pos, '\'', false)}
	case c == '"':
		return token{tokenQuoted, pos, quoted(sql, pos, '"', false)}
	case c == '$':
		if end, ok := dollar(sql, pos); ok {
			return token{tokenDollar, pos, end}
		}
	case isWord(c):
		if rest := sql[pos+1:]; rest != "" && rest[0] == '\'' && strings.IndexByte("eEbBxXnN", c) >= 0 {
			return token{tokenLiteral, pos, quoted(sql, pos+1, '\'', c == 'e' || c == 'E')}
		}
		if len(sql)-pos > 2 && (c == 'u' || c == 'U') && sql[pos+1] == '&' && sql[pos+2] == '\'' {
			return token{tokenLiteral, pos, quoted(sql, pos+2, '\'', false)}
		}
		end := pos + 1
		for end < len(sql) && (isWord(sql[end]) || sql[end] == '$') {
			end++
		}
		return token{tokenWord, pos, end}
	}
	return token{tokenOther, pos, pos + 1}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
}

func skipBlank(sql string, pos int) int {
	for pos < len(sql) {
		switch rest := sql[pos:]; {
		case sql[pos] == ' ' || sql[pos] >= '\t' && sql[pos] <= '\r':
			pos++
		case strings.HasPrefix(rest, "--"):
			end := strings.IndexAny(rest, "\r\n")
			if end < 0 {
				return len(sql)
			}
			pos += end
		case strings.HasPrefix(rest, "/*"):
			depth := 1
			for pos += 2; pos < len(sql) && depth > 0; {
				switch {
				case strings.HasPrefix(sql[pos:], "/*"):
					depth, pos = depth+1, pos+2
				case strings.HasPrefix(sql[pos:], "*/"):
					depth, pos = depth-1, pos+2
				default:
					pos++
				}
			}
		default:
			return pos
		}
	}
	return pos
}

// quoted returns where the quoted text that begins at pos ends. A doubled quote stands for itself.
func quoted(sql string, pos int, quote byte, backslash bool) int {
	for pos++; pos < len(sql); pos++ {
		switch {
		case backslash && sql[pos] == '\\':
			pos++
		case sql[pos] != quote:
		case pos+1 < len(sql) && sql[pos+1] == quote:
			pos++
		default:
			return pos + 1
		}
	}
	return len(sql)
}

// dollar returns where the dollar-quoted text that begins at pos ends, and false if none does.
func dollar(sql string, pos int) (end int, ok bool) {
	n := pos + 1
	for n < len(sql) && isWord(sql[n]) {
		n++
	}
	if n >= len(sql) || sql[n] != '$' || n > pos+1 && sql[pos+1] >= '0' && sql[pos+1] <= '9' {
		return 0, false
	}
	tag := sql[pos : n+1]
	if close := strings.Index(sql[n+1:], tag); close >= 0 {
		return n + 1 + close + len(tag), true
	}
	return len(sql), true
}

// nameEffects finds what a single statement does to the prepared statements' names: PREPARE name, DEALLOCATE name.
func nameEffects(sql string) (prepare, dealloc string) {
	first := scan(sql, 0)
	word := sql[first.start:first.end]
	isPrepare := strings.EqualFold(word, "prepare")
	if first.kind != tokenWord || !isPrepare && !strings.EqualFold(word, "deallocate") {
		return "", ""
	}
	second := scan(sql, first.end)
	if !isPrepare && strings.EqualFold(sql[second.start:second.end], "prepare") {
		second = scan(sql, second.end)
	}
	name := strings.Clone(sql[second.start:second.end])
	switch second.kind {
	case tokenWord:
		name = strings.ToLower(name)
	case tokenQuoted:
		name = strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`)
	default:
		return "", ""
	}
	if isPrepare {
		if strings.EqualFold(name, "transaction") { // of two-phase commit, or a statement of that name: not worth a guess
			return "", ""
		}
		return name, ""
	}
	return "", name
}
