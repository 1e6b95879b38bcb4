-- +goose Up
-- What was answered to requests with an idempotency key. Times are unix milliseconds.
CREATE TABLE idempotency_keys (
	id      BLOB PRIMARY KEY, -- hash of caller, operation and key
	caller  BLOB NOT NULL,    -- hash of the caller, for the bound on each
	request BLOB NOT NULL,    -- hash of the request that the key was first used with
	began   INTEGER NOT NULL,
	status  INTEGER NOT NULL DEFAULT 0, -- 0: under way, or its end was lost
	kind    TEXT NOT NULL DEFAULT '',   -- content type
	body    BLOB NOT NULL DEFAULT ''
);
CREATE INDEX idempotency_keys_caller ON idempotency_keys (caller, began);
