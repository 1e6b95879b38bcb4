-- +goose Up
-- When this database was brought back from a backup, and which rooms have ended what they had in it.
CREATE TABLE restored (
	id   INTEGER PRIMARY KEY,
	made INTEGER NOT NULL, -- when the backup was
	at   INTEGER NOT NULL
);
CREATE TABLE restored_seen (
	room TEXT PRIMARY KEY,
	id   INTEGER NOT NULL
);
