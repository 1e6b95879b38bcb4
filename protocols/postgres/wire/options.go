package wire

import (
	"fmt"
	"strings"
)

// Options reads the value of the start-up parameter `options` as the server would: words split at white space, where a
// backslash takes the next character as it is (pg_split_opts), each of them `-c NAME=VALUE`, `-cNAME=VALUE` or
// `--NAME=VALUE` (process_postgres_switches). In a name written with two dashes a dash means an underscore, as it does
// in ParseLongOption for both. Everything else a server accepts there (-f, -s, -W…) is for developers, and is an error.
func Options(value string) ([]Param, error) {
	words := splitOptions(value)
	var params []Param
	for i := 0; i < len(words); i++ {
		word := words[i]
		var setting string
		switch {
		case word == "-c":
			i++
			if i == len(words) {
				return nil, fmt.Errorf("options: -c needs NAME=VALUE after it")
			}
			setting = words[i]
		case strings.HasPrefix(word, "--"):
			setting = word[2:]
		case strings.HasPrefix(word, "-c"):
			setting = word[2:]
		default:
			return nil, fmt.Errorf("options: %q is neither -c NAME=VALUE nor --NAME=VALUE", word)
		}
		name, v, ok := strings.Cut(setting, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("options: %q is not NAME=VALUE", setting)
		}
		params = append(params, Param{strings.ReplaceAll(name, "-", "_"), v})
	}
	return params, nil
}

func splitOptions(s string) []string {
	var words []string
	for i := 0; i < len(s); {
		for i < len(s) && isSpace(s[i]) {
			i++
		}
		if i == len(s) {
			break
		}
		var word []byte
		for i < len(s) && !isSpace(s[i]) {
			if s[i] == '\\' {
				i++
				if i == len(s) { // a backslash at the end stands for nothing
					break
				}
			}
			word = append(word, s[i])
			i++
		}
		words = append(words, string(word))
	}
	return words
}

// isSpace is C's isspace in the C locale.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
