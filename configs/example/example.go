// Package example is the commented configuration that an installation begins with. What it writes loads once the files are there that the
// installation brings: certificates and the targets' authorities.
package example

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed *.yaml
var templates embed.FS

// Installation is what Write puts into a new configuration.
type Installation struct {
	Host        string // the gateway's name
	State       string // state directory
	Issuer      string // OpenID provider
	Certificate string // PEM files
	Key         string
	CA          string // or empty
}

// Write writes sallyport.yaml, targets.yaml and policies.yaml, commented, into directory, and returns their paths.
// It overwrites nothing: if one is there, none is written.
func Write(directory string, in Installation) ([]string, error) {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, fmt.Errorf("make the configuration's directory: %w", err)
	}
	examples, err := template.ParseFS(templates, "*.yaml")
	if err != nil {
		return nil, err
	}
	// Once: the library gives them in another order each time.
	files := examples.Templates()
	slices.SortFunc(files, func(a, b *template.Template) int { return strings.Compare(a.Name(), b.Name()) })
	var paths []string
	for _, t := range files {
		path := filepath.Join(directory, t.Name())
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s is there already; nothing was written", path)
		}
		paths = append(paths, path)
	}
	for i, t := range files {
		f, err := os.OpenFile(paths[i], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, fmt.Errorf("write the configuration: %w", err)
		}
		err = t.Execute(f, in)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", paths[i], err)
		}
	}
	return paths, nil
}
