package client

import (
	"context"
	"net/http"

	"sallyport/web/api"
)

// Credential is a password that the gateway has just made, and how to use it.
type Credential struct {
	api.Credential
	Password string  `json:"password"`
	Address  Address `json:"address"`
	URL      string  `json:"url"`
	JDBC     string  `json:"jdbc_url"`
}

// NewCredential has the gateway make a password for an account on a Postgres target. Nobody keeps it: it is shown or it
// is lost.
func (c *Client) NewCredential(ctx context.Context, ask api.CredentialRequest) (Credential, error) {
	var issued api.IssuedCredential
	if err := c.Do(ctx, http.MethodPost, "/v1/credentials", ask, &issued); err != nil {
		return Credential{}, err
	}
	if err := plain(issued.Connection); err != nil {
		return Credential{}, err
	}
	out := Credential{Credential: issued.Credential, Password: issued.Password, Address: addressOf(issued.Connection, issued.User, c.authority(issued.Gateway))}
	out.Address.Password = issued.Password
	out.URL, out.JDBC = out.Address.URL(), out.Address.JDBC()
	return out, nil
}

// authority is the file with the authority of the gateway's certificate; empty: every machine trusts it.
func (c *Client) authority(g api.Gateway) string {
	if g.CA == "" {
		return ""
	}
	return c.home.Path(fileAuthority)
}
