package api

import "time"

// Authority is one of the gateway's own: a key that certifies others, or signs.
type Authority struct {
	Name        string    `json:"name" enum:"ssh-host,login,tls-client,target,issuer"`
	Purpose     string    `json:"purpose" doc:"What it signs, and who trusts it."`
	Fingerprint string    `json:"fingerprint" doc:"SHA256:… of its public key, as ssh prints it."`
	Since       time.Time `json:"since,omitzero"`
	Published   bool      `json:"published" doc:"Others must learn a new key before it is used, so that it is prepared first."`
	Next        string    `json:"next,omitempty" doc:"Fingerprint of the key that was prepared."`
	// Old are its earlier keys.
	Old []OldAuthority `json:"old,omitempty"`
}

// OldAuthority is an earlier key of an authority, whose signatures are accepted for a while.
type OldAuthority struct {
	Fingerprint string    `json:"fingerprint"`
	Until       time.Time `json:"until"`
}

// Rotation says how to rotate an authority.
type Rotation struct {
	Activate bool `json:"activate,omitempty" doc:"Use the key that was prepared."`
	AtOnce   bool `json:"at_once,omitempty" doc:"Without any overlap: the old key is no longer secret."`
}
