-- +goose Up
-- Jobs whose provider is asked whether they still run, while they are signed in.
CREATE TABLE jobs (
	sign_in  TEXT PRIMARY KEY REFERENCES sign_ins (id) ON DELETE CASCADE,
	workload TEXT NOT NULL, -- its name
	handle   TEXT NOT NULL, -- the claims that the provider knows it by, as JSON
	ran      BIGINT NOT NULL -- when the provider last said that it runs
);
