-- +goose Up
-- AUTOINCREMENT: a number is never given twice, also after its row has been moved.
CREATE TABLE audit_outbox (
	number INTEGER PRIMARY KEY AUTOINCREMENT,
	body   BLOB NOT NULL
);
