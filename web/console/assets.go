package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"

	"sallyport/internal/refusal"
)

// static are the console's own style and scripts; dist is the terminal player, which `make build` takes from npm. A
// repository where that was not done has only a note in it, and the pages say what is missing.
//
//go:embed static dist
var assetFiles embed.FS

type asset struct {
	content []byte
	kind    string
	tag     string // changes with the content
}

// kinds are the content types of assets; other files are not served.
var kinds = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

var assets = func() map[string]asset {
	all := map[string]asset{}
	for _, dir := range []string{"static", "dist"} {
		entries, err := fs.ReadDir(assetFiles, dir)
		if err != nil {
			panic(err) // both are embedded
		}
		for _, e := range entries {
			kind, ok := kinds[path.Ext(e.Name())]
			if !ok {
				continue
			}
			content, err := assetFiles.ReadFile(path.Join(dir, e.Name()))
			if err != nil {
				panic(err)
			}
			sum := sha256.Sum256(content)
			all[e.Name()] = asset{content: content, kind: kind, tag: hex.EncodeToString(sum[:12])}
		}
	}
	return all
}()

// The player's files.
const (
	playerScript = "asciinema-player.min.js"
	playerStyle  = "asciinema-player.css"
)

// hasPlayer says whether this binary was built with the terminal player.
func hasPlayer() bool {
	_, script := assets[playerScript]
	_, style := assets[playerStyle]
	return script && style
}

// asset serves a file that anybody may have: it is the same in every gateway.
func (s *server) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[r.PathValue("file")]
	if !ok {
		s.problem(&visit{Request: r, w: w}, s.Desk.Problem("asset", refusal.New(refusal.NotFound, "there is nothing at this address")))
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache") // ask each time whether it is still the same
	h.Set("ETag", fmt.Sprintf("%q", a.tag))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}
