-- +goose Up
-- What has ended, and how far it has come on its way to the archive at a place.
CREATE TABLE archive_objects (
	place    TEXT NOT NULL,    -- endpoint, bucket and prefix
	session  TEXT NOT NULL,    -- of the recording, or the audit file's
	leaf     INTEGER NOT NULL, -- of its ending, in the log over all recordings
	ended    INTEGER NOT NULL, -- milliseconds, when that was written
	chain    TEXT NOT NULL,    -- what it bound
	state    TEXT NOT NULL,    -- waiting, archived, or gone: purged or destroyed before it was there
	object   TEXT NOT NULL DEFAULT '',
	version  TEXT NOT NULL DEFAULT '',
	sha256   TEXT NOT NULL DEFAULT '',
	bytes    INTEGER NOT NULL DEFAULT 0,
	archived INTEGER NOT NULL DEFAULT 0, -- milliseconds, when it had been read back
	upload   TEXT NOT NULL DEFAULT '',   -- of one in parts that is under way
	PRIMARY KEY (place, session)
);
CREATE INDEX archive_objects_waiting ON archive_objects (place, state, leaf);
-- How far the log has been read for what has ended, and how many leaves the newest archived checkpoint covers.
CREATE TABLE archive_places (
	place      TEXT PRIMARY KEY,
	leaves     INTEGER NOT NULL,
	checkpoint INTEGER NOT NULL,
	saved      INTEGER NOT NULL, -- milliseconds, when that checkpoint went there
	complete   INTEGER NOT NULL  -- milliseconds, when the archive last had everything
);
