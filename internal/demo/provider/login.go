package provider

import (
	"context"
	"errors"
	"html/template"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// loginPage is the sign-in form: a GET shows it, a POST of the fields id, name and password checks it. A program signs in
// by posting the same fields; there is no script in it.
type loginPage struct {
	storage *storage
	done    func(ctx context.Context, id string) string // where pkg/op goes on
	issuer  *op.IssuerInterceptor
}

var loginForm = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Demo provider: sign in</title>
<style>body{font-family:sans-serif;max-width:22em;margin:4em auto}label,input,button{display:block;width:100%;margin:.3em 0;padding:.4em;box-sizing:border-box}.error{color:#a00}</style>
</head>
<body>
<h1>Demo provider</h1>
<p>This stands for your company's sign-in page. It runs on this machine only.</p>
{{with .Error}}<p class="error" role="alert">{{.}}</p>{{end}}
<form method="post" action="/login">
<input type="hidden" name="id" value="{{.ID}}">
<label>Name <input name="name" autocomplete="username" autofocus required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button>
</form>
</body>
</html>
`))

func (l *loginPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Frame-Options", "DENY")
	switch r.Method {
	case http.MethodGet:
		l.show(w, http.StatusOK, r.FormValue("id"), nil)
	case http.MethodPost:
		l.issuer.HandlerFunc(l.check)(w, r)
	default:
		header.Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

func (l *loginPage) check(w http.ResponseWriter, r *http.Request) {
	id := r.PostFormValue("id")
	err := l.storage.signIn(id, r.PostFormValue("name"), r.PostFormValue("password"))
	switch {
	case errors.Is(err, errWrong), errors.Is(err, errDisabled):
		l.show(w, http.StatusUnauthorized, id, err)
	case err != nil:
		l.show(w, http.StatusBadRequest, id, err)
	default:
		http.Redirect(w, r, l.done(r.Context(), id), http.StatusFound)
	}
}

func (l *loginPage) show(w http.ResponseWriter, status int, id string, err error) {
	page := struct{ ID, Error string }{ID: id}
	if err != nil {
		page.Error = err.Error()
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = loginForm.Execute(w, page) // the browser is gone if this fails
}
