-- +goose Up
-- Logout tokens of the company's provider that were acted upon, for as long as they would be taken: each is good once.
CREATE TABLE logout_tokens (
	issuer  TEXT NOT NULL,
	token   TEXT NOT NULL, -- its jti
	expires BIGINT NOT NULL,
	PRIMARY KEY (issuer, token)
);
CREATE INDEX logout_tokens_by_expiry ON logout_tokens (expires);
CREATE INDEX sign_ins_by_session ON sign_ins (session);
