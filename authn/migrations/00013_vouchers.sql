-- +goose Up
-- Refresh tokens of people's providers, encrypted, to ask whether a person may still sign in: one of a sign-in.
CREATE TABLE vouchers (
	sign_in  TEXT PRIMARY KEY REFERENCES sign_ins (id) ON DELETE CASCADE,
	provider TEXT NOT NULL, -- its issuer
	token    TEXT NOT NULL,
	vouched  BIGINT NOT NULL, -- when the provider last said yes
	asked    BIGINT NOT NULL
);
