-- +goose Up
-- Recordings that are being destroyed: what a gateway that dies meanwhile leaves is destroyed by its next start.
CREATE TABLE recording_shreds (
	session TEXT PRIMARY KEY,
	since   INTEGER NOT NULL -- milliseconds
);
