-- +goose Up
-- What providers provision by SCIM (RFC 7643): people and groups of each, kept apart by its issuer.
CREATE TABLE directory_people (
	id          TEXT PRIMARY KEY,
	provider    TEXT NOT NULL,
	user_name   TEXT NOT NULL,
	user_key    TEXT NOT NULL, -- in lower case: RFC 7643, section 4.1.1
	external_id TEXT NOT NULL,
	active      INTEGER NOT NULL,
	body        TEXT NOT NULL, -- the rest, JSON
	created     BIGINT NOT NULL,
	modified    BIGINT NOT NULL,
	UNIQUE (provider, user_key)
);
CREATE INDEX directory_people_by_external_id ON directory_people (provider, external_id);
CREATE TABLE directory_groups (
	id          TEXT PRIMARY KEY,
	provider    TEXT NOT NULL,
	name        TEXT NOT NULL,
	external_id TEXT NOT NULL,
	created     BIGINT NOT NULL,
	modified    BIGINT NOT NULL,
	UNIQUE (provider, name)
);
CREATE TABLE directory_members (
	group_id TEXT NOT NULL REFERENCES directory_groups (id) ON DELETE CASCADE,
	person   TEXT NOT NULL REFERENCES directory_people (id) ON DELETE CASCADE,
	PRIMARY KEY (group_id, person)
);
CREATE INDEX directory_members_by_person ON directory_members (person);
-- By what the directory knows an identity, its groups there, and since when it is closed there.
ALTER TABLE identities ADD COLUMN matched TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN directory TEXT NOT NULL DEFAULT '[]'; -- JSON
ALTER TABLE identities ADD COLUMN closed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX identities_by_match ON identities (issuer, matched);
