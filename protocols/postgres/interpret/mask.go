package interpret

import "strings"

// masked stands in the place of a password.
const masked = "'********'"

const secretWord = "password"

// maxMaskDepth bounds how deep text inside of text is looked into.
const maxMaskDepth = 4

// Mask is a statement with its passwords masked, for what people see.
func Mask(sql string) string { return mask(sql) }

// mask hides passwords in a statement: the literal after the word PASSWORD (ALTER ROLE … PASSWORD '…', user mappings'
// OPTIONS (password '…')), and password=… inside of literals (connection strings). The recording has the raw bytes;
// what people read, search and export has this.
func mask(sql string) string {
	if !containsFold(sql, secretWord) {
		return sql
	}
	return maskDepth(sql, 0)
}

func maskDepth(sql string, depth int) string {
	if depth == maxMaskDepth {
		return masked
	}
	var b strings.Builder
	copied, afterPassword := 0, false
	replace := func(t token, with string) {
		b.WriteString(sql[copied:t.start])
		b.WriteString(with)
		copied = t.end
	}
	for t := scan(sql, 0); t.kind != tokenEnd; t = scan(sql, t.end) {
		text := sql[t.start:t.end]
		switch {
		case afterPassword && (t.kind == tokenLiteral || t.kind == tokenDollar):
			replace(t, masked)
			// A literal goes on in the next one after a line break.
			continue
		case t.kind == tokenDollar && containsFold(text, secretWord):
			tag := text[:strings.IndexByte(text[1:], '$')+2]
			if inner, ok := strings.CutSuffix(text[len(tag):], tag); ok {
				replace(t, tag+maskDepth(inner, depth+1)+tag)
			} else {
				replace(t, tag+maskDepth(text[len(tag):], depth+1))
			}
		case t.kind == tokenLiteral && containsFold(text, secretWord):
			replace(t, maskConnection(text))
		}
		afterPassword = t.kind == tokenWord && strings.EqualFold(text, secretWord) ||
			t.kind == tokenQuoted && strings.EqualFold(strings.Trim(text, `"`), secretWord)
	}
	b.WriteString(sql[copied:])
	return b.String()
}

// maskConnection hides, inside of a literal, the value of password=… as connection strings have it, and the literal
// after the word PASSWORD in a statement that stands as text inside of another, where its quotes are doubled.
func maskConnection(text string) string {
	var b strings.Builder
	for at := indexFold(text, secretWord); at >= 0; at = indexFold(text, secretWord) {
		rest := text[at+len(secretWord):]
		value := strings.TrimLeft(rest, " \t\r\n=")
		between := rest[:len(rest)-len(value)]
		b.WriteString(text[:at+len(secretWord)])
		b.WriteString(between)
		text = value
		switch {
		case strings.HasPrefix(value, "''"):
			b.WriteString("''********")
			text = ""
			if end := strings.Index(value[2:], "''"); end >= 0 {
				text = value[2+end:]
			}
		case strings.Contains(between, "=") && !strings.HasPrefix(value, "'"):
			b.WriteString("********")
			text = value[indexAnyOrEnd(value, " \t\r\n&'"):]
		}
	}
	b.WriteString(text)
	return b.String()
}

func indexAnyOrEnd(s, chars string) int {
	if n := strings.IndexAny(s, chars); n >= 0 {
		return n
	}
	return len(s)
}

func containsFold(s, word string) bool { return indexFold(s, word) >= 0 }

// indexFold is strings.Index for a lower-case ASCII word, whatever the case in s.
func indexFold(s, word string) int {
	for i := 0; i+len(word) <= len(s); i++ {
		if s[i]|0x20 == word[0] && strings.EqualFold(s[i:i+len(word)], word) {
			return i
		}
	}
	return -1
}
