-- +goose Up
-- Tokens of workloads that were exchanged, until they have run out: a job may use its token again, no other may.
CREATE TABLE workload_tokens (
	issuer   TEXT NOT NULL,
	token    TEXT NOT NULL, -- its jti, else a hash of it
	identity TEXT NOT NULL,
	uses     BIGINT NOT NULL,
	expires  BIGINT NOT NULL,
	PRIMARY KEY (issuer, token)
);
CREATE INDEX workload_tokens_by_expiry ON workload_tokens (expires);
