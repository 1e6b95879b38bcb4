package welcome

import (
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sallyport/internal/refusal"
)

const (
	// maxDownloads is how many are served at a time, because anybody may ask.
	maxDownloads = 32
	// downloadPiece is how long a client may take for each piece.
	downloadPiece = 30 * time.Second
)

// releaseFile are the names of a release's files; nothing else in the directory is served.
var releaseFile = regexp.MustCompile(`^(sallyport(-verify)?_[A-Za-z0-9][A-Za-z0-9._+~-]*|SHA256SUMS)$`)

// open opens the release's directory; nothing outside it can be reached through what it returns.
func (p *Pages) open() (*os.Root, error) {
	directory := p.Releases()
	if directory == "" || !filepath.IsLocal(p.Version) {
		return nil, fs.ErrNotExist
	}
	return os.OpenRoot(filepath.Join(directory, p.Version))
}

var downloadPage = template.Must(template.New("download").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Sallyport {{.Version}}</title>
<h1>Sallyport {{.Version}}</h1>
<p>The command line for this gateway. Save the file for your system as <code>sallyport</code>, make it executable, compare its checksum, and sign in:</p>
<pre>
curl -fL -O {{.URL}}/download/sallyport_linux_amd64 -O {{.URL}}/download/SHA256SUMS
sha256sum --check --ignore-missing SHA256SUMS
sudo install -m 0755 sallyport_linux_amd64 /usr/local/bin/sallyport
sallyport login --gateway {{.URL}}
</pre>
<ul>{{range .Files}}<li><a href="{{.Name}}">{{.Name}}</a> ({{.Size}} bytes){{end}}</ul>
</html>
`))

// List is the page of the release's files.
func (p *Pages) List(w http.ResponseWriter, r *http.Request) {
	root, err := p.open()
	if err != nil {
		p.missing(w, r, err)
		return
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		p.missing(w, r, err)
		return
	}
	type file struct {
		Name string
		Size int64
	}
	page := struct {
		Version, URL string
		Files        []file
	}{Version: p.Version, URL: strings.TrimSuffix(p.URL, "/")}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && releaseFile.MatchString(e.Name()) {
			page.Files = append(page.Files, file{e.Name(), info.Size()})
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = downloadPage.Execute(w, page) // an error is the client going away
}

// File is one of them, by the request's path value "name".
func (p *Pages) File(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	root, err := p.open()
	if err != nil || !releaseFile.MatchString(name) {
		p.missing(w, r, errors.Join(err, fs.ErrNotExist))
		return
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		p.missing(w, r, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		p.missing(w, r, errors.Join(err, fs.ErrNotExist))
		return
	}
	select {
	case p.room <- struct{}{}:
		defer func() { <-p.room }()
	default:
		w.Header().Set("Retry-After", "30")
		p.Fail(w, refusal.New(refusal.TooMany, "too many downloads are going on").WithHint("try again in half a minute"))
		return
	}
	kind := "application/octet-stream"
	if name == "SHA256SUMS" {
		kind = "text/plain; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	http.ServeContent(&piecewise{ResponseWriter: w, control: http.NewResponseController(w)}, r, name, info.ModTime(), f)
}

// missing answers as everything does that is not here.
func (p *Pages) missing(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		p.Log.Error("a release can't be served", "path", r.URL.Path, "error", err)
	}
	p.Missing(w, r)
}

// piecewise gives the client time for each piece, rather than for the whole.
type piecewise struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *piecewise) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(downloadPiece)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}
