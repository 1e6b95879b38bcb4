-- +goose Up

-- What was done by break-glass has to be looked at: one row a grant.
CREATE TABLE grant_reviews (
    grant_id TEXT    NOT NULL PRIMARY KEY REFERENCES grants (id),
    issuer   TEXT    NOT NULL, -- of the holder
    subject  TEXT    NOT NULL,
    reviewers TEXT   NOT NULL, -- JSON, groups
    due      INTEGER NOT NULL,
    told     INTEGER NOT NULL DEFAULT 0, -- that it is overdue
    done     INTEGER NOT NULL DEFAULT 0,
    by_issuer  TEXT  NOT NULL DEFAULT '',
    by_subject TEXT  NOT NULL DEFAULT '',
    by_name    TEXT  NOT NULL DEFAULT '',
    comment    TEXT  NOT NULL DEFAULT ''
);
CREATE INDEX grant_reviews_open ON grant_reviews (issuer, subject) WHERE done = 0;
