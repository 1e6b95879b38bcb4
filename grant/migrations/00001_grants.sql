-- +goose Up

-- Times are nanoseconds since 1970, 0 for none.
CREATE TABLE grants (
    id          TEXT    NOT NULL PRIMARY KEY,
    version     INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('pending', 'approved', 'active', 'ended', 'denied', 'withdrawn', 'lapsed')),
    issuer      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    identity    TEXT    NOT NULL, -- JSON, as it was proven when it asked
    target      TEXT    NOT NULL,
    account     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    policy      TEXT    NOT NULL,
    duration    INTEGER NOT NULL CHECK (duration > 0),
    needed      INTEGER NOT NULL,
    may_approve TEXT    NOT NULL, -- JSON
    requested   INTEGER NOT NULL,
    decide_by   INTEGER NOT NULL,
    activate_by INTEGER NOT NULL,
    started     INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL,
    end_reason  TEXT    NOT NULL,
    ended_by    TEXT    NOT NULL,
    end_comment TEXT    NOT NULL,

    CHECK (until <= started + duration),
    CHECK ((state = 'active') <= (started > 0 AND until > 0))
);

-- One grant of an identity for an account at a time.
CREATE UNIQUE INDEX grants_open ON grants (issuer, subject, target, account) WHERE state IN ('pending', 'approved', 'active');
CREATE INDEX grants_by_owner ON grants (issuer, subject, target, account, requested);
CREATE INDEX grants_by_time ON grants (requested);

-- One person, one vote.
CREATE TABLE grant_votes (
    grant_id    TEXT    NOT NULL REFERENCES grants (id),
    issuer      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    memberships TEXT    NOT NULL, -- JSON, the groups of the voter when voting
    approve     INTEGER NOT NULL,
    comment     TEXT    NOT NULL,
    time        INTEGER NOT NULL,
    PRIMARY KEY (grant_id, issuer, subject)
);

-- The latest wall-clock time that has been seen: the one row's.
CREATE TABLE grant_clock (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    high INTEGER NOT NULL
);
INSERT INTO grant_clock (id, high) VALUES (1, 0);
