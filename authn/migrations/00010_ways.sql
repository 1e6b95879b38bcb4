-- +goose Up
-- How strongly and when the provider says that somebody proved themselves (OpenID Connect Core, section 2), and its own
-- name for that session, which back-channel logout uses.
ALTER TABLE sign_ins ADD COLUMN acr TEXT NOT NULL DEFAULT '';
ALTER TABLE sign_ins ADD COLUMN amr TEXT NOT NULL DEFAULT '[]'; -- JSON
ALTER TABLE sign_ins ADD COLUMN auth_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sign_ins ADD COLUMN session TEXT NOT NULL DEFAULT '';

-- A trip may also be for a connection that waits for its person (memory knows which), or for another provider than the first.
ALTER TABLE trips ADD COLUMN hold TEXT NOT NULL DEFAULT '';
ALTER TABLE trips ADD COLUMN provider TEXT NOT NULL DEFAULT '';

-- Plain SSH keys that stand for a person for some hours, from one source, because they signed in while a connection with
-- that key waited for it.
CREATE TABLE ssh_keys (
	id          TEXT PRIMARY KEY,
	sign_in     TEXT NOT NULL REFERENCES sign_ins (id) ON DELETE CASCADE,
	ssh_key     BLOB NOT NULL, -- SHA-256 of the key's wire form
	source      TEXT NOT NULL, -- IPv4 address or IPv6 /64
	fingerprint TEXT NOT NULL, -- for people
	issued      BIGINT NOT NULL,
	expires     BIGINT NOT NULL,
	revoked     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX ssh_keys_by_key ON ssh_keys (ssh_key, source);
CREATE INDEX ssh_keys_by_sign_in ON ssh_keys (sign_in);
