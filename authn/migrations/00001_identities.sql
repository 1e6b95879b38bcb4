-- +goose Up
-- Times are nanoseconds since 1970 in UTC; 0 means never. Of what proves somebody, only hashes are kept.

-- Who has ever signed in, with what the provider said last.
CREATE TABLE identities (
	id         TEXT PRIMARY KEY, -- from issuer and subject; the subject of the gateway's own tokens
	issuer     TEXT NOT NULL,
	subject    TEXT NOT NULL,
	kind       TEXT NOT NULL,
	name       TEXT NOT NULL,
	email      TEXT NOT NULL,
	groups     TEXT NOT NULL, -- JSON
	disabled   BIGINT NOT NULL DEFAULT 0, -- since when
	signed_out BIGINT NOT NULL DEFAULT 0, -- sign-ins up to then are over
	UNIQUE (issuer, subject)
);

-- One proof by the provider; tokens and certificates hang on it and end with it.
CREATE TABLE sign_ins (
	id       TEXT PRIMARY KEY,
	identity TEXT NOT NULL REFERENCES identities (id),
	at       BIGINT NOT NULL,
	expires  BIGINT NOT NULL,
	ended    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX sign_ins_by_identity ON sign_ins (identity);

-- What Certify issued. A certificate is good only for the key it was issued for.
CREATE TABLE credentials (
	id      TEXT PRIMARY KEY,
	sign_in TEXT NOT NULL REFERENCES sign_ins (id) ON DELETE CASCADE,
	tls_key BLOB, -- SHA-256 of the SubjectPublicKeyInfo
	ssh_key BLOB, -- SHA-256 of the key's wire form
	issued  BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	revoked BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX credentials_by_sign_in ON credentials (sign_in);

-- Access and refresh tokens of the gateway's issuer. A family is what one exchange began and rotation continued.
CREATE TABLE tokens (
	id      TEXT PRIMARY KEY, -- public, for the audit log
	hash    BLOB NOT NULL UNIQUE,
	kind    TEXT NOT NULL, -- access, refresh
	family  TEXT NOT NULL,
	sign_in TEXT NOT NULL REFERENCES sign_ins (id) ON DELETE CASCADE,
	client  TEXT NOT NULL,
	scopes  TEXT NOT NULL,
	issued  BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	used    BIGINT NOT NULL DEFAULT 0, -- a refresh token is good once
	revoked BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tokens_by_family ON tokens (family);
CREATE INDEX tokens_by_sign_in ON tokens (sign_in);
