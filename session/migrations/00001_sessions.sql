-- +goose Up
-- The recording is the truth; a row here is for listing. Times are unix milliseconds.
CREATE TABLE sessions (
	id         TEXT PRIMARY KEY,
	protocol   TEXT NOT NULL,
	identity   BLOB NOT NULL, -- authn.Identity as JSON
	target     TEXT NOT NULL,
	account    TEXT NOT NULL,
	grant_id   TEXT NOT NULL,
	reason     TEXT NOT NULL,
	approvers  BLOB NOT NULL, -- array of names as JSON
	client     TEXT NOT NULL,
	started    INTEGER NOT NULL,
	ended      INTEGER,
	end_reason TEXT NOT NULL DEFAULT '',
	end_detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX sessions_started ON sessions (started);
CREATE INDEX sessions_open ON sessions (id) WHERE ended IS NULL;
