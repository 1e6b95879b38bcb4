-- +goose Up
-- Passwords for programs that can't hold a certificate, each for one account on one target. Only what verifies one is kept
-- (RFC 5802, section 3: StoredKey and ServerKey).
CREATE TABLE passwords (
	id         TEXT PRIMARY KEY, -- what stands behind the plus sign in ACCOUNT+ID
	sign_in    TEXT NOT NULL REFERENCES sign_ins (id) ON DELETE CASCADE,
	target     TEXT NOT NULL,
	account    TEXT NOT NULL,
	salt       BLOB NOT NULL,
	iterations BIGINT NOT NULL,
	stored_key BLOB NOT NULL,
	server_key BLOB NOT NULL,
	issued     BIGINT NOT NULL,
	expires    BIGINT NOT NULL,
	revoked    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX passwords_by_sign_in ON passwords (sign_in);
