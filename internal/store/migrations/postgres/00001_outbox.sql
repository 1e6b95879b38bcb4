-- +goose Up
CREATE TABLE audit_outbox (
	number INTEGER PRIMARY KEY,
	body   BLOB NOT NULL
);

-- The number last given: one without gaps, and never given twice, also after its row has been moved.
CREATE TABLE audit_number (
	id   INTEGER PRIMARY KEY CHECK (id = 1),
	last INTEGER NOT NULL
);
INSERT INTO audit_number (id, last) VALUES (1, 0);
