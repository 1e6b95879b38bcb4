//go:build unix

package demo

import (
	"fmt"
	"path/filepath"
	"text/template"
)

// lines are what a newcomer pastes.
var lines = template.Must(template.New("lines").Funcs(template.FuncMap{"quote": shellWord}).Parse(`
Everything is up, on this machine only. Paste into another terminal:

  export PATH={{quote .Bin}}:"$PATH"
  as() { SALLYPORT_HOME={{quote .Homes}}/$1; export SALLYPORT_HOME PGSERVICEFILE=$SALLYPORT_HOME/pg_service.conf; }

Alice is an engineer and needs the database:

  as alice
  psql service=orders        # refused: she has no grant, and is told how to ask
  sallyport request app@orders   --duration 30m --reason "slow checkout"
  sallyport request deploy@web-1 --duration 30m --reason "slow checkout"

Bob approves (Alice can't, not her own):

  as bob
  sallyport requests
  sallyport approve ID

Alice goes in, with the stock programs:

  as alice
  psql service=orders        # such as: select * from orders;
  ssh -F "$SALLYPORT_HOME/ssh_config" web-1

Carol watches over it:

  as carol
  sallyport sessions --all
  sallyport replay ID
  sallyport search "from orders"
  sallyport verify

Or all of it in a browser, each as themselves in a window of their own: {{.URL}}/console/
(its certificate is signed by {{quote .CA}})

All three are signed in already. To do it yourself, as anybody (the provider's page asks for name and password):

  sallyport login --gateway {{.URL}} --ca {{quote .CA}}
{{range .People}}
  {{printf "%-6s" .Name}} {{.Password}}   {{index .Groups 0}}{{end}}

State, configuration and logs: {{.Dir}}
Ctrl-C ends everything{{if not .Kept}} and removes it{{end}}.
`))

func (d *Demo) printLines() error {
	type row struct {
		Name, Password string
		Groups         []string
	}
	var people []row
	for _, name := range names {
		u := d.people[name].user
		people = append(people, row{u.Name, u.Password, u.Groups})
	}
	if err := lines.Execute(d.options.Out, map[string]any{
		"Bin": filepath.Dir(d.options.Binary), "Homes": filepath.Join(d.dir, "homes"), "URL": d.gateway.url, "CA": d.authority.file,
		"People": people, "Dir": d.dir, "Kept": d.options.Dir != "",
	}); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// shellWord quotes only what needs it, so that lines stay readable.
func shellWord(s string) string {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '/' || r == '.' || r == '-' || r == '_' || r == ':') {
			return shellQuote(s)
		}
	}
	return s
}
