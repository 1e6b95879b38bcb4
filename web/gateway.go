package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/web/api"
	"sallyport/web/said"
	"sallyport/web/welcome"
)

type body[T any] struct{ Body T }

func (s *server) registerGateway() {
	op := operation("get-gateway", http.MethodGet, "/v1/gateway", "What a client needs before anybody has signed in")
	op.Metadata = map[string]any{public: true}
	op.Errors = []int{http.StatusInternalServerError}
	huma.Register(s.api, op, func(ctx context.Context, _ *struct{}) (*body[api.Gateway], error) {
		gateway, err := s.gateway()
		if err != nil {
			return nil, s.fail(op.OperationID, err)
		}
		return &body[api.Gateway]{gateway}, nil
	})
}

// gateway is the public description.
func (s *server) gateway() (api.Gateway, error) {
	config := s.Config()
	g := api.Gateway{
		URL:           s.URL,
		Version:       s.Version,
		Issuer:        s.URL,
		HostAuthority: authorizedKey(s.Authn.HostAuthority()),
	}
	if config.TLS.CA != "" {
		pem, err := os.ReadFile(config.TLS.CA)
		if err != nil {
			return g, fmt.Errorf("read the gateway's authority: %w", err)
		}
		g.CA = string(pem)
	}
	host, err := s.host()
	if err != nil {
		return g, err
	}
	g.Postgres = api.Endpoint{Host: host, Port: s.port("postgres", config.Listen.Postgres)}
	g.SSH = api.Endpoint{Host: host, Port: s.port("ssh", config.Listen.SSH)}
	if name, port, err := net.SplitHostPort(config.SSH.Host); err == nil {
		g.SSH.Host = name
		if number, err := strconv.Atoi(port); err == nil && number != 0 { // 0: the listener's, whatever it is
			g.SSH.Port = number
		}
	}
	if config.Listen.SSH == "" {
		g.SSH.Port = 0
	}
	return g, nil
}

// host is the name under which clients reach the gateway.
func (s *server) host() (string, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("the gateway's URL %q has no host: %w", s.URL, err)
	}
	return u.Hostname(), nil
}

// port is the port that clients use for a listener: the one it really has, else the configured one, else 0.
func (s *server) port(listener, configured string) int {
	address := configured
	if s.Bound != nil {
		if bound := s.Bound(listener); bound != "" {
			address = bound
		}
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return number
}

// connections are the ways to the targets of which the caller may use an account.
func (s *server) connections(ctx context.Context, who caller, g api.Gateway) ([]api.Connection, error) {
	offers, err := s.Grants.Offers(ctx, who.Identity)
	if err != nil {
		return nil, err
	}
	offered := map[string][]string{}
	for _, o := range offers {
		offered[o.Target] = append(offered[o.Target], o.Account)
	}
	connections := []api.Connection{}
	for _, target := range s.Config().Targets {
		accounts := []string{}
		for _, a := range target.Accounts {
			if slices.Contains(offered[target.Name], a.Name) {
				accounts = append(accounts, a.Name)
			}
		}
		if len(accounts) == 0 {
			continue
		}
		connections = append(connections, s.connection(target, accounts, g))
	}
	return connections, nil
}

// connection is the way to one target. A Postgres target's own listener comes first, because there the database's name
// means what it means straight; a server name needs name service that leads here, so the shared listener is the one
// that always works.
func (s *server) connection(target configs.Target, accounts []string, g api.Gateway) api.Connection {
	c := api.Connection{Name: target.Name, Kind: target.Kind, Accounts: accounts}
	switch {
	case target.Kind == configs.KindSSH:
		c.Host, c.Port, c.Aliases = g.SSH.Host, g.SSH.Port, target.Aliases
	case target.Listen != "":
		c.Host, c.Port, c.ServerName = g.Postgres.Host, s.port("postgres/"+target.Name, target.Listen), target.ServerName
		if c.Database = target.Database; c.Database == "" {
			c.Database = target.Name
		}
	default:
		c.Host, c.Port, c.ServerName = g.Postgres.Host, g.Postgres.Port, target.ServerName
		c.Database = target.Name
	}
	return c
}

// knownHosts are the lines by which an OpenSSH client trusts the gateway and, through it, the SSH targets: the gateway
// ends a jump itself, with a host certificate for the target's name.
func (s *server) knownHosts(g api.Gateway, connections []api.Connection) []string {
	gateway := g.SSH.Host
	if g.SSH.Port != 22 {
		gateway = "[" + g.SSH.Host + "]:" + strconv.Itoa(g.SSH.Port)
	}
	var lines []string
	for _, authority := range s.Authn.HostAuthorities() { // the next one too, so that it is known when it is used
		key := authorizedKey(authority)
		lines = append(lines, "@cert-authority "+gateway+" "+key)
		for _, c := range connections {
			if c.Kind == configs.KindSSH {
				lines = append(lines, "@cert-authority "+c.Name+" "+key)
			}
		}
	}
	return lines
}

// welcoming is what people are told who have nothing of this gateway's yet.
func (s *server) welcoming() (api.Gateway, welcome.Hosts, error) {
	gateway, err := s.gateway()
	if err != nil {
		return gateway, welcome.Hosts{}, err
	}
	hosts := welcome.Hosts{Authority: s.Authn.HostAuthority(), Known: s.knownHosts(gateway, nil)}
	if signer := s.Authn.HostKey(); signer != nil {
		hosts.Key = signer.PublicKey()
	}
	return gateway, hosts, nil
}

// authorizedKey is the key on one line, without a comment.
func authorizedKey(key ssh.PublicKey) string {
	if key == nil {
		return ""
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// offers lists what the caller may ask for.
func (s *server) offers(ctx context.Context, who caller) ([]api.Offer, error) {
	offers, err := s.Grants.Offers(ctx, who.Identity)
	if err != nil {
		return nil, err
	}
	out := make([]api.Offer, 0, len(offers))
	for _, o := range offers {
		out = append(out, said.Offer(o))
	}
	return out, nil
}
