// Package welcome is the pages for people who have nothing of this gateway's yet and are not signed in: how stock programs connect, and the
// command line to download.
//
// They are public, so they promise to say what anybody may know of the gateway and nothing else: names of targets and accounts are only
// repeated from the address, and of the directory of releases nothing but a release's files of the gateway's own version is served, to a
// bounded number of clients at a time.
package welcome

import (
	"log/slog"
	"net/http"

	"golang.org/x/crypto/ssh"

	"sallyport/web/api"
)

// Options configure New. All are required.
type Options struct {
	// URL is the gateway's public address, Version its own.
	URL, Version string
	// Gateway returns what anybody may know of the gateway.
	Gateway func() (api.Gateway, Hosts, error)
	// Releases returns the directory of releases as `make release` lays them out: RELEASES/VERSION/NAME; empty: there is none. It is asked for
	// each request, so that one that is put there later needs no restart.
	Releases func() string
	// Fail answers with an error, Missing as everything does that is not here.
	Fail    func(w http.ResponseWriter, err error)
	Missing http.HandlerFunc
	Log     *slog.Logger
}

// Hosts are what an SSH client trusts: the authority of host certificates, the gateway's own key, and lines for known_hosts. Either key may
// be nil.
type Hosts struct {
	Authority, Key ssh.PublicKey
	Known          []string
}

// Pages are the handlers. Safe for concurrent use.
type Pages struct {
	Options
	room chan struct{} // holds one for each download that is going on
}

// New makes the pages.
func New(o Options) *Pages { return &Pages{Options: o, room: make(chan struct{}, maxDownloads)} }
