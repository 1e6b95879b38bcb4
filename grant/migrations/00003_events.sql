-- +goose Up

-- What happened to grants and has not yet been taken to those who are told of it. A row is written with the change it
-- tells of.
CREATE TABLE grant_events (
    number   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    grant_id TEXT    NOT NULL,
    body     TEXT    NOT NULL -- JSON
);
