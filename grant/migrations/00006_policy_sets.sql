-- +goose Up

-- Every set of policies that was ever in force, so that what was decided by it can be worked out again.
CREATE TABLE policy_sets (
    hash   TEXT    NOT NULL PRIMARY KEY,
    body   TEXT    NOT NULL, -- JSON
    loaded INTEGER NOT NULL  -- when first
);

-- The one that is in force: one row.
CREATE TABLE policy_current (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    hash TEXT    NOT NULL
);
INSERT INTO policy_current (id, hash) VALUES (1, '');
