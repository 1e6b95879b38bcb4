// Package pages is what a person sees in their browser while signing in.
//
// The pages are plain HTML: nothing loaded from elsewhere, a strict content security policy, never cached and never in a frame; and
// no script but on the one page where a browser has to ask a person's authenticator, which only a script can. What came from
// outside is only ever shown as text.
package pages

import (
	"crypto/rand"
	"embed"
	"html/template"
	"net/http"
	"strconv"
	"time"
)

//go:embed *.html
var files embed.FS

var templates = template.Must(template.ParseFS(files, "*.html"))

// Message says how something went: a sentence, why, and what to do next.
type Message struct {
	Title, Detail, Hint string
}

// Enter asks for the code that a device shows.
type Enter struct {
	Problem string // with what was entered before
}

// Device says what asks to be signed in, before anybody has.
type Device struct {
	Code    string
	Address string // where the request came from, as the gateway saw it
	Agent   string // what it calls itself
	Asked   time.Time
	For     string // the account on a target that it is for, "" where it is for all that the person may do
	Next    string // link to the sign-in
}

// Confirm is Device once the person is known; Token is the one-time secret of the form.
type Confirm struct {
	Device
	Who, Email, Token string
}

// Connection says what waits for its person: a connection of a stock program, before anybody has signed in.
type Connection struct {
	For, Protocol string
	Address       string // where it comes from, as the gateway sees it
	Elsewhere     string // where the browser is, if that is not the same
	Agent         string
	Asked         time.Time
	Key, KeyLasts string // of an SSH key that will stand for the person, for how long
	Next          string
}

// ConfirmConnection is Connection once the person is known; they type the code that the terminal shows. Token is the
// one-time secret of the form.
type ConfirmConnection struct {
	Connection
	Who, Email, Token string
	Problem           string // with what was typed before
}

// Program says which program on the person's own machine asks to be signed in, before anybody has.
type Program struct {
	Address string // where it takes the answer
	Asked   time.Time
	Next    string
}

// Choice is a provider to sign in at.
type Choice struct {
	Name, Host string
	Next       string
}

// Choose asks at which of several providers the person signs in.
type Choose struct {
	Choices []Choice
}

// ProviderDown says that the provider does not answer, and offers an enrolled key for an emergency.
type ProviderDown struct {
	Host    string
	Options string // what navigator.credentials.get takes, as JSON; "" on the console's way, which offers none
	Console bool
	Again   string // link to try the provider all the same
}

// Emergency says what a sign-in with an enrolled key is good for.
type Emergency struct {
	Who   string
	Until time.Time
	Next  string // link to the program that waits
}

//go:embed key.js
var keyScript []byte

// KeyScript serves the script of ProviderDown.
func KeyScript(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	_, _ = w.Write(keyScript) // an error is the browser going away
}

// Show writes a page: one of the types above.
func Show(w http.ResponseWriter, status int, page any) {
	var name, scripts string
	switch page.(type) {
	case ProviderDown:
		name, scripts = "providerdown.html", "script-src 'self'; "
	case Emergency:
		name = "emergency.html"
	case Message:
		name = "message.html"
	case Enter:
		name = "enter.html"
	case Device:
		name = "device.html"
	case Confirm:
		name = "confirm.html"
	case Program:
		name = "program.html"
	case Choose:
		name = "choose.html"
	case Connection:
		name = "connection.html"
	case ConfirmConnection:
		name = "confirmconnection.html"
	}
	nonce := rand.Text()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; "+scripts+"style-src 'nonce-"+nonce+"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	Secure(h)
	w.WriteHeader(status)
	// An error here is the browser going away; there is nobody left to tell.
	_ = templates.ExecuteTemplate(w, name, struct {
		Nonce string
		Page  any
	}{nonce, page})
}

// Secure sets the headers that every answer of the issuer has, pages and others.
func Secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// RetryAfter tells programs when to come again.
func RetryAfter(h http.Header, after time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(after/time.Second)))
}
