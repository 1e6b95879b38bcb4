-- +goose Up
-- Recordings that are kept whatever their age.
CREATE TABLE recording_holds (
	session TEXT PRIMARY KEY,
	since   INTEGER NOT NULL, -- milliseconds
	by      TEXT NOT NULL,
	reason  TEXT NOT NULL
);
