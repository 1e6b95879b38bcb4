package evidence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"

	"sallyport/authn/secrets"
	"sallyport/configs"
)

// file is evidence in a file, which others write.
type file struct{ config configs.Evidence }

// Read implements Source. A key that is not in the file is something that is not so.
func (f file) Read(_ context.Context, about About) (Reading, error) {
	in, err := os.Open(f.config.File)
	if err != nil {
		return Reading{}, errors.New("its file can't be read")
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxBody+1))
	if err != nil || len(text) > maxBody {
		return Reading{}, fmt.Errorf("its file can't be read, or is larger than %d bytes", maxBody)
	}
	var data map[string]any
	if err := yaml.Unmarshal(text, &data); err != nil {
		return Reading{}, errors.New("its file is no YAML or JSON")
	}
	if f.config.Key != "" {
		key, err := fill(f.config.Key, about, func(s string) string { return s })
		if err != nil {
			return Reading{Over: err.Error()}, nil
		}
		inner, found := data[key].(map[string]any)
		if !found {
			return Reading{Over: fmt.Sprintf("there is nothing about %q", key)}, nil
		}
		data = inner
	}
	end, err := until(data, f.config.Until)
	return Reading{Data: plain(data), Until: end}, err
}

// plain makes of YAML what JSON would have been, so that conditions meet the same types.
func plain(data map[string]any) map[string]any {
	text, err := json.Marshal(data)
	var out map[string]any
	if err != nil || json.Unmarshal(text, &out) != nil {
		return map[string]any{}
	}
	return out
}

// address is evidence that another system serves as JSON.
type address struct {
	config configs.Evidence
	client *http.Client
}

func newAddress(c configs.Evidence) (Source, error) {
	client, err := Client(c.CA)
	return address{c, client}, err
}

// Client is an HTTP client that follows no redirects, and trusts a file of authorities beside the system's.
func Client(ca string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, Timeout: readTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// Read implements Source. 404 and 410 are something that is not so.
func (a address) Read(ctx context.Context, about About) (Reading, error) {
	where, err := fill(a.config.URL, about, addressEscape)
	if err != nil {
		return Reading{Over: err.Error()}, nil //nolint:nilerr // what is asked for can be at no address: that is an answer
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return Reading{}, errors.New("its address is none")
	}
	if a.config.Token != "" {
		token, err := secrets.Resolve(ctx, a.config.Token)
		if err != nil {
			return Reading{}, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Accept", "application/json")
	var data map[string]any
	switch status, err := Fetch(a.client, r, &data); {
	case err != nil:
		return Reading{}, err
	case status == http.StatusNotFound || status == http.StatusGone:
		return Reading{Over: "the other system knows of none"}, nil
	case status != http.StatusOK:
		return Reading{}, fmt.Errorf("the other system answered with status %d", status)
	}
	end, err := until(data, a.config.Until)
	return Reading{Data: data, Until: end}, err
}

// Busy is an answer that says when to ask again.
type Busy struct{ After time.Duration }

func (b Busy) Error() string {
	return fmt.Sprintf("the other system asks to wait for %s", b.After.Round(time.Second))
}

// Patience is how long an answer of 429 or 503 asks to wait (RFC 9110, 10.2.3: seconds, or a time); false where it does not say.
func Patience(answer *http.Response, now time.Time) (time.Duration, bool) {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	text := answer.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(seconds) * time.Second, seconds > 0 && seconds < 1<<30
	}
	at, err := http.ParseTime(text)
	return at.Sub(now), err == nil && at.After(now)
}

// Fetch sends a request and reads a JSON answer of 200 into v, bounded. Errors do not repeat the address.
func Fetch(client *http.Client, r *http.Request, v any) (status int, err error) {
	answer, err := client.Do(r)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return 0, err
	}
	defer answer.Body.Close()
	if after, ok := Patience(answer, time.Now()); ok {
		return answer.StatusCode, Busy{after}
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16*maxBody+1))
	if err != nil {
		return 0, err
	}
	if answer.StatusCode != http.StatusOK {
		return answer.StatusCode, nil
	}
	if len(text) > 16*maxBody {
		return 0, fmt.Errorf("the answer is larger than %d bytes", 16*maxBody)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return 0, errors.New("the answer is not the JSON that was expected")
	}
	return answer.StatusCode, nil
}
