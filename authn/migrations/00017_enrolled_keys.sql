-- +goose Up
-- WebAuthn keys that people enrolled, for emergencies while their provider can't be asked.
CREATE TABLE enrolled_keys (
	id         TEXT PRIMARY KEY, -- public, for the audit log
	identity   TEXT NOT NULL REFERENCES identities (id),
	credential BLOB NOT NULL UNIQUE, -- the authenticator's id of it
	public     BLOB NOT NULL, -- in COSE form
	counter    BIGINT NOT NULL, -- of signatures
	synced     INTEGER NOT NULL, -- 1: it may be in several devices
	name       TEXT NOT NULL, -- what its owner calls it
	address    TEXT NOT NULL, -- from where it was enrolled
	enrolled   BIGINT NOT NULL,
	used       BIGINT NOT NULL DEFAULT 0,
	suspended  BIGINT NOT NULL DEFAULT 0 -- since its counter was found not to have grown
);
CREATE INDEX enrolled_keys_by_identity ON enrolled_keys (identity);

-- What browsers were asked to sign, once each: to enrol a key (identity is whose), or to sign in with one, on the way of one of the
-- others (as in trips).
CREATE TABLE key_challenges (
	challenge    BLOB PRIMARY KEY, -- hashed
	browser      BLOB NOT NULL, -- hashed: the issuer's cookie, or the console's credential
	identity     TEXT NOT NULL DEFAULT '',
	provider     TEXT NOT NULL DEFAULT '',
	auth_request TEXT REFERENCES auth_requests (id) ON DELETE CASCADE,
	device       BLOB REFERENCES devices (code) ON DELETE CASCADE,
	hold         TEXT NOT NULL DEFAULT '',
	expires      BIGINT NOT NULL
);

-- The key that a sign-in was made with, '' where the provider proved it; and then when the provider last did.
ALTER TABLE sign_ins ADD COLUMN emergency TEXT NOT NULL DEFAULT '';
ALTER TABLE sign_ins ADD COLUMN known BIGINT NOT NULL DEFAULT 0;
-- Since when the provider does not vouch for somebody any more, until they sign in there again.
ALTER TABLE identities ADD COLUMN withdrawn BIGINT NOT NULL DEFAULT 0;
