-- +goose Up
-- What finding among a million sessions goes by: whose they are, and who that is in words.
ALTER TABLE sessions ALTER COLUMN identity TYPE TEXT USING convert_from(identity, 'UTF8');
ALTER TABLE sessions ADD COLUMN owner TEXT GENERATED ALWAYS AS
	((identity::json ->> 'issuer') || ' ' || (identity::json ->> 'subject')) STORED;
ALTER TABLE sessions ADD COLUMN person TEXT GENERATED ALWAYS AS
	(lower(coalesce(identity::json ->> 'name', '') || chr(10) || coalesce(identity::json ->> 'email', '') || chr(10) || (identity::json ->> 'subject'))) STORED;
CREATE INDEX sessions_owner ON sessions (owner, id, target);
CREATE INDEX sessions_target ON sessions (target, id);
CREATE INDEX sessions_grant ON sessions (grant_id, id);
CREATE INDEX sessions_person ON sessions (person, id);
