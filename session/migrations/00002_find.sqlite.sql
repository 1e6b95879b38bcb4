-- +goose Up
-- What finding among a million sessions goes by: whose they are, and who that is in words.
ALTER TABLE sessions ADD COLUMN owner TEXT GENERATED ALWAYS AS
	(json_extract(CAST(identity AS TEXT), '$.issuer') || ' ' || json_extract(CAST(identity AS TEXT), '$.subject')) VIRTUAL;
ALTER TABLE sessions ADD COLUMN person TEXT GENERATED ALWAYS AS
	(lower(ifnull(json_extract(CAST(identity AS TEXT), '$.name'), '') || char(10) || ifnull(json_extract(CAST(identity AS TEXT), '$.email'), '') || char(10) || json_extract(CAST(identity AS TEXT), '$.subject'))) VIRTUAL;
CREATE INDEX sessions_owner ON sessions (owner, id, target);
CREATE INDEX sessions_target ON sessions (target, id);
CREATE INDEX sessions_grant ON sessions (grant_id, id);
CREATE INDEX sessions_person ON sessions (person, id);
