package secrets

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
)

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("AUTHN_S", "from env\n")
	t.Setenv("AUTHN_EMPTY", "")
	script := file("script", "#!/bin/sh\nprintf '%s|' \"$@\"\n", 0o700)
	for ref, want := range map[string]string{
		"env:AUTHN_S":                                                      "from env",
		"file:" + file("a", "x y\n\n", 0o600):                              "x y\n",
		"file:" + file("crlf", "x\r\n", 0o600):                             "x",
		"file:" + file("world", "shown", 0o644):                            "shown",
		"file:" + file("full", strings.Repeat("a", maxSecret)+"\n", 0o600): strings.Repeat("a", maxSecret),
		"command:" + script + ` a 'b c' "d \" e" f\ g '' $HOME *`:          `a|b c|d " e|f g||$HOME|*|`,
		"command:printf x\\\\n":                                            "x",
	} {
		if got, err := Resolve(t.Context(), configs.SecretRef(ref)); err != nil || got != want {
			t.Errorf("%s: %.60q, %v", ref, got, err)
		}
	}
	loud := file("loud", "#!/bin/sh\necho hunter2 >&2\nexit 3\n", 0o700)
	for name, ref := range map[string]string{
		"itself":           "hunter2",
		"another scheme":   "vault:hunter2",
		"env not set":      "env:AUTHN_NOT_SET",
		"env empty":        "env:AUTHN_EMPTY",
		"no file":          "file:" + filepath.Join(dir, "none"),
		"a directory":      "file:" + dir,
		"empty":            "file:" + file("empty", "\n", 0o600),
		"group may write":  "file:" + file("group", "hunter2", 0o620),
		"others may write": "file:" + file("others", "hunter2", 0o602),
		"too long":         "file:" + file("long", strings.Repeat("hunter2", maxSecret), 0o600),
		"NUL":              "file:" + file("nul", "hunter2\x00", 0o600),
		"no command":       "command:",
		"no program":       "command:" + filepath.Join(dir, "none"),
		"fails":            "command:" + loud,
		"endless":          "command:yes hunter2",
		"open quote":       "command:echo 'a",
		"nothing":          "command:true",
	} {
		got, err := Resolve(t.Context(), configs.SecretRef(ref))
		if err == nil || got != "" {
			t.Errorf("%s: %.60q", name, got)
		} else if strings.Contains(err.Error(), "hunter2") && !strings.HasPrefix(ref, "command:yes") {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}
}

// A command that does not end does not hold the gateway, even where its children keep its output open.
func TestSecretCommandIsCutOff(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := Resolve(ctx, `command:sh -c "sleep 30 & sleep 30"`); err == nil {
		t.Fatal("it ended")
	}
	if d := time.Since(began); d > secretTimeout {
		t.Fatalf("took %s", d)
	}
}

// A command that writes without end is stopped at the limit, not at the timeout with all of it in memory.
func TestSecretCommandOutputIsBounded(t *testing.T) {
	if _, err := Resolve(t.Context(), "command:yes"); err == nil || !strings.Contains(err.Error(), "wrote more than") {
		t.Fatal(err)
	}
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                nil,
		"  a\tb  ":        {"a", "b"},
		`a"b c"d`:         {"ab cd"},
		`'a\b' "\\" \'`:   {`a\b`, `\`, `'`},
		`"" ''`:           {"", ""},
		`a;b|c $(d) ~ >e`: {"a;b|c", "$(d)", "~", ">e"},
	} {
		if got, err := splitWords(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
	for _, line := range []string{`"`, `'a`, `a\`} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// TestCommandsKnowNoOtherSecret: a command that fetches a secret is not given those that the gateway has from its environment.
func TestCommandsKnowNoOtherSecret(t *testing.T) {
	t.Setenv("AUTHN_OTHER", "canary")
	t.Setenv("AUTHN_PLAIN", "plain")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "canary")
	Withhold([]string{"AUTHN_OTHER"})
	Withhold([]string{"AUTHN_ANOTHER"})
	said, err := Resolve(t.Context(), "command:env")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(said, "canary") || !strings.Contains(said, "AUTHN_PLAIN=plain") {
		t.Errorf("the command is given:\n%s", said)
	}
}
