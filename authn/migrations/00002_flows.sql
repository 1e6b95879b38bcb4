-- +goose Up
-- Sign-ins on their way. All of these rows die within minutes.

-- What a client asked of /oauth/authorize. browser is the hash of the cookie that ties it to one browser.
CREATE TABLE auth_requests (
	id           TEXT PRIMARY KEY,
	browser      BLOB NOT NULL,
	client       TEXT NOT NULL,
	redirect     TEXT NOT NULL,
	scopes       TEXT NOT NULL,
	state        TEXT NOT NULL,
	nonce        TEXT NOT NULL,
	challenge    TEXT NOT NULL, -- S256
	created      BIGINT NOT NULL,
	expires      BIGINT NOT NULL,
	sign_in      TEXT REFERENCES sign_ins (id) ON DELETE CASCADE,
	code         BLOB UNIQUE,
	code_expires BIGINT NOT NULL DEFAULT 0,
	used         BIGINT NOT NULL DEFAULT 0 -- kept, so that a code's second use is seen
);

-- What a device asked of /oauth/device_authorization (RFC 8628).
CREATE TABLE devices (
	code      BLOB PRIMARY KEY,
	user_code TEXT NOT NULL UNIQUE,
	client    TEXT NOT NULL,
	scopes    TEXT NOT NULL,
	address   TEXT NOT NULL,
	agent     TEXT NOT NULL,
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL,
	polled    BIGINT NOT NULL DEFAULT 0,
	decision  TEXT NOT NULL DEFAULT '', -- approved, denied, taken
	sign_in   TEXT REFERENCES sign_ins (id) ON DELETE CASCADE
);

-- A browser's way to the company's provider and back, for one of the above. state is what comes back with it; once it
-- has, the row of a device is replaced by one that waits for the person's confirmation and holds who they are.
CREATE TABLE trips (
	state        BLOB PRIMARY KEY,
	browser      BLOB NOT NULL,
	nonce        TEXT NOT NULL,
	verifier     TEXT NOT NULL,
	auth_request TEXT REFERENCES auth_requests (id) ON DELETE CASCADE,
	device       BLOB REFERENCES devices (code) ON DELETE CASCADE,
	identity     TEXT NOT NULL DEFAULT '', -- JSON
	expires      BIGINT NOT NULL
);
