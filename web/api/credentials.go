package api

import "time"

// CredentialRequest asks for a password for one account on one Postgres target.
type CredentialRequest struct {
	Target   string `json:"target" minLength:"1" maxLength:"253"`
	Account  string `json:"account" minLength:"1" maxLength:"128"`
	Duration string `json:"duration,omitempty" maxLength:"32" doc:"Such as 30m or 8h; empty: as long as the sign-in."`
}

// Credential is such a password, without it.
type Credential struct {
	ID      string    `json:"id"`
	User    string    `json:"user" doc:"The name to log in with: ACCOUNT+ID."`
	Target  string    `json:"target"`
	Account string    `json:"account"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// IssuedCredential is what a request for one is answered with, once: the gateway keeps no password.
type IssuedCredential struct {
	Credential
	Password   string     `json:"password"`
	Connection Connection `json:"connection" doc:"How the target is reached."`
	Gateway    Gateway    `json:"gateway"`
}

// Key is a plain SSH key that stands for somebody who signed in while a connection with it waited.
type Key struct {
	ID          string    `json:"id"`
	Fingerprint string    `json:"fingerprint" doc:"SHA-256, as ssh-keygen -l prints it."`
	Source      string    `json:"source" doc:"From where it is good: an IPv4 address or an IPv6 /64."`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
}
