package web

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
	// pathDownload is where the client's binaries are, for those who have none yet: nobody needs to be signed in.
	pathDownload = "/download/"
	// maxDownloads is how many are served at a time, because anybody may ask.
	maxDownloads = 32
	// downloadPiece is how long a client may take for each piece.
	downloadPiece = 30 * time.Second
)

// releaseFile are the names of a release's files; nothing else in the directory is served.
var releaseFile = regexp.MustCompile(`^(sallyport(-verify)?_[A-Za-z0-9][A-Za-z0-9._+~-]*|SHA256SUMS)$`)

// downloads serves the release of the gateway's own version, as `make release` lays it out: RELEASES/VERSION/NAME. The
// directory is opened for each request, so that one that is put there later needs no restart.
type downloads struct {
	*server
	room chan struct{}
}

func (s *server) registerDownloads(mux *router) {
	d := &downloads{s, make(chan struct{}, maxDownloads)}
	mux.HandleFunc("GET "+pathDownload+"{$}", d.list)
	mux.HandleFunc("GET "+pathDownload+"{name}", d.file)
}

// open opens the release's directory; nothing outside it can be reached through what it returns.
func (d *downloads) open() (*os.Root, error) {
	directory := d.Config().Releases
	if directory == "" || !filepath.IsLocal(d.Version) {
		return nil, fs.ErrNotExist
	}
	return os.OpenRoot(filepath.Join(directory, d.Version))
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

func (d *downloads) list(w http.ResponseWriter, r *http.Request) {
	root, err := d.open()
	if err != nil {
		d.missing(w, r, err)
		return
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		d.missing(w, r, err)
		return
	}
	type file struct {
		Name string
		Size int64
	}
	page := struct {
		Version, URL string
		Files        []file
	}{Version: d.Version, URL: strings.TrimSuffix(d.URL, "/")}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && releaseFile.MatchString(e.Name()) {
			page.Files = append(page.Files, file{e.Name(), info.Size()})
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = downloadPage.Execute(w, page) // an error is the client going away
}

func (d *downloads) file(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	root, err := d.open()
	if err != nil || !releaseFile.MatchString(name) {
		d.missing(w, r, errors.Join(err, fs.ErrNotExist))
		return
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		d.missing(w, r, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		d.missing(w, r, errors.Join(err, fs.ErrNotExist))
		return
	}
	select {
	case d.room <- struct{}{}:
		defer func() { <-d.room }()
	default:
		w.Header().Set("Retry-After", "30")
		write(w, problem(refusal.New(refusal.TooMany, "too many downloads are going on").WithHint("try again in half a minute")))
		return
	}
	kind := "application/octet-stream"
	if name == "SHA256SUMS" {
		kind = plainText
	}
	w.Header().Set("Content-Type", kind)
	http.ServeContent(&piecewise{ResponseWriter: w, control: http.NewResponseController(w)}, r, name, info.ModTime(), f)
}

// missing answers as everything does that is not here.
func (d *downloads) missing(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		d.Log.Error("a release can't be served", "path", r.URL.Path, "error", err)
	}
	d.nothingHere(w, r)
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
