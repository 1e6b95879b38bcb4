-- +goose Up
-- The last audit event that the alerts have looked at.
CREATE TABLE alert_cursor (
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	number INTEGER NOT NULL
);
