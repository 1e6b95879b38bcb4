-- +goose Up
-- A row stands here before its role is made on the target, and until it was seen to be gone. Times are unix milliseconds.
CREATE TABLE ephemeral_roles (
	name     TEXT PRIMARY KEY,
	grant_id TEXT NOT NULL,
	target   TEXT NOT NULL,
	account  TEXT NOT NULL,
	state    TEXT NOT NULL,              -- making, made, dropping
	made     INTEGER NOT NULL,           -- when it was first intended
	ended    INTEGER NOT NULL DEFAULT 0, -- when its grant was found over
	attempts INTEGER NOT NULL DEFAULT 0,
	next     INTEGER NOT NULL DEFAULT 0, -- when it is tried again
	alarmed  INTEGER NOT NULL DEFAULT 0, -- when it was last said to be stuck
	error    TEXT NOT NULL DEFAULT ''
);
-- What tells this gateway's roles from those of others on the same server.
CREATE TABLE ephemeral_self (
	one INTEGER PRIMARY KEY,
	tag TEXT NOT NULL
);
