-- +goose Up

-- The set of policies that waits for a second person, and from which set it comes; at most one.
CREATE TABLE policy_held (
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	before TEXT    NOT NULL, -- hashes
	after  TEXT    NOT NULL,
	body   TEXT    NOT NULL, -- JSON: what is different
	since  INTEGER NOT NULL,
	-- who has confirmed it, empty: nobody yet
	issuer  TEXT NOT NULL DEFAULT '',
	subject TEXT NOT NULL DEFAULT ''
);
