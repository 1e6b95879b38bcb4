-- +goose Up
-- Browsers that are signed in to the console. What a browser holds is in no row: of its secret only the hash is kept, and
-- the access token it stands for is sealed with a key that is made from the secret. Times are unix milliseconds.
CREATE TABLE console_sessions (
	id      BLOB PRIMARY KEY, -- hash of the cookie's secret
	token   BLOB NOT NULL,    -- the access token, sealed
	began   INTEGER NOT NULL,
	seen    INTEGER NOT NULL, -- when somebody last did something with it, to the minute
	expires INTEGER NOT NULL
);
CREATE INDEX console_sessions_by_expiry ON console_sessions (expires);
