// Elsewhere checks that packages compile for other systems, without compiling them: they and all that they import are read and
// their types are checked, which takes a tenth of the time. `make release` builds them.
//
//	go run ./test/tools/elsewhere GOOS… -- PACKAGE…
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

func main() {
	split := slices.Index(os.Args, "--")
	if split < 2 || split+1 == len(os.Args) {
		fmt.Fprintln(os.Stderr, "usage: elsewhere GOOS… -- PACKAGE…")
		os.Exit(2)
	}
	found := 0
	for _, system := range os.Args[1:split] {
		checked, errs, err := check(system, os.Args[split+1:])
		if err != nil {
			fmt.Fprintf(os.Stderr, "read the packages for %s: %v\n", system, err)
			os.Exit(1)
		}
		for _, e := range errs {
			fmt.Fprintf(os.Stderr, "%s: %v\n", system, e)
		}
		if found += len(errs); len(errs) == 0 {
			fmt.Printf("%s: %d packages, no errors\n", system, checked)
		}
	}
	if found > 0 {
		os.Exit(1)
	}
}

// bodiless is what is wrong with others only because their functions are left out.
var bodiless = regexp.MustCompile(`(and|imported) not used$|missing function body|must have a body`)

// check returns how many packages were checked for a system, and what is wrong with them.
func check(system string, patterns []string) (checked int, errs []packages.Error, err error) {
	here, err := os.Getwd()
	if err != nil {
		return 0, nil, err
	}
	roots, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesSizes | packages.NeedModule,
		Env: append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system),
		// What stands in the functions of others is theirs.
		ParseFile: func(files *token.FileSet, name string, text []byte) (*ast.File, error) {
			file, err := parser.ParseFile(files, name, text, parser.SkipObjectResolution)
			if file != nil && !strings.HasPrefix(name, here+string(filepath.Separator)) {
				for _, declaration := range file.Decls {
					if f, ok := declaration.(*ast.FuncDecl); ok {
						f.Body = nil
					}
				}
			}
			return file, err
		},
	}, patterns...)
	if err != nil {
		return 0, nil, err
	}
	packages.Visit(roots, nil, func(p *packages.Package) {
		checked++
		for _, e := range p.Errors {
			ours := p.Module != nil && p.Module.Main
			if ours || e.Kind != packages.TypeError || !bodiless.MatchString(e.Msg) {
				errs = append(errs, e)
			}
		}
	})
	return checked, errs, nil
}
