package authn

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"sallyport/authn/scim"
	"sallyport/authn/secrets"
)

// pathDirectory is where providers provision people and groups.
const pathDirectory = "/scim/v2"

const (
	strangeToken = "http: bad SCIM token"
	// minDirectoryToken keeps a token from being guessed.
	minDirectoryToken = 32
	maxDirectoryToken = 4096

	directoryRate  = 50 // a second, of one source: a provider's first run brings everybody
	directoryBurst = 500
)

// provision answers providers that provision. Which one asks is decided by its token alone, and it reaches its own people only.
func (s *Service) provision() http.Handler {
	handlers := map[string]http.Handler{}
	for _, p := range s.config.AllProviders() {
		if d := s.directoryOf(p.Issuer); d != nil {
			base := strings.TrimSuffix(s.config.URL, "/") + pathDirectory
			handlers[p.Issuer] = http.StripPrefix(pathDirectory, scim.Handler(d, base, s.log))
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		provider := s.provisioner(r)
		if provider == "" {
			s.unauthenticated(strangeToken, r)
			w.Header().Set("WWW-Authenticate", `Bearer realm="scim"`)
			scim.Fail(w, http.StatusUnauthorized, "", "the token is not accepted here")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), directoryTime)
		defer cancel()
		handlers[provider].ServeHTTP(w, r.WithContext(ctx))
	})
}

// provisioner is the issuer whose token r shows; "" for nobody's. All tokens are compared, whichever fits; one that two providers have
// proves neither.
func (s *Service) provisioner(r *http.Request) string {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || len(shown) < minDirectoryToken || len(shown) > maxDirectoryToken {
		return ""
	}
	sum := sha256.Sum256([]byte(shown))
	found, fits := "", 0
	for _, p := range s.config.AllProviders() {
		if p.SCIM == nil {
			continue
		}
		token, err := secrets.Resolve(r.Context(), p.SCIM.Token)
		if err != nil {
			s.logStranger(r, "a provider's SCIM token can't be read, so it can't provision", err)
			continue
		}
		if want := sha256.Sum256([]byte(token)); len(token) >= minDirectoryToken && subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
			found = p.Issuer
			fits++
		}
	}
	if fits != 1 {
		return ""
	}
	return found
}
