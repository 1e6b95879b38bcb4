-- +goose Up

-- Tickets, idle ends and extensions. SQLite can't change a table's constraints, so both tables are made anew.
CREATE TABLE votes_before AS SELECT * FROM grant_votes;
DROP TABLE grant_votes;

CREATE TABLE grants_now (
    id          TEXT    NOT NULL PRIMARY KEY,
    version     INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('pending', 'approved', 'active', 'ended', 'denied', 'withdrawn', 'lapsed')),
    issuer      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    identity    TEXT    NOT NULL, -- JSON, as it was proven when it asked
    source      TEXT    NOT NULL DEFAULT '', -- the address it asked from
    target      TEXT    NOT NULL,
    account     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    ticket      TEXT    NOT NULL DEFAULT '',
    policy      TEXT    NOT NULL,
    duration    INTEGER NOT NULL CHECK (duration > 0),
    total       INTEGER NOT NULL CHECK (total >= duration), -- how long it may last with all extensions
    idle        INTEGER NOT NULL DEFAULT 0,
    needed      INTEGER NOT NULL,
    may_approve TEXT    NOT NULL, -- JSON
    requested   INTEGER NOT NULL,
    decide_by   INTEGER NOT NULL,
    activate_by INTEGER NOT NULL,
    started     INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    extensions  INTEGER NOT NULL DEFAULT 0,  -- how many have been asked for
    extension   TEXT    NOT NULL DEFAULT '', -- JSON, of one that waits for approval
    ended_at    INTEGER NOT NULL,
    end_reason  TEXT    NOT NULL,
    ended_by    TEXT    NOT NULL,
    end_comment TEXT    NOT NULL,

    CHECK (until <= started + total),
    CHECK (extensions > 0 OR until <= started + duration),
    CHECK ((state = 'active') <= (started > 0 AND until > 0)),
    CHECK ((extension <> '') <= (state = 'active'))
);
INSERT INTO grants_now (id, version, state, issuer, subject, identity, target, account, reason, policy, duration, total, needed,
        may_approve, requested, decide_by, activate_by, started, until, ended_at, end_reason, ended_by, end_comment)
    SELECT id, version, state, issuer, subject, identity, target, account, reason, policy, duration, duration, needed,
        may_approve, requested, decide_by, activate_by, started, until, ended_at, end_reason, ended_by, end_comment FROM grants;
DROP TABLE grants;
ALTER TABLE grants_now RENAME TO grants;

CREATE UNIQUE INDEX grants_open ON grants (issuer, subject, target, account) WHERE state IN ('pending', 'approved', 'active');
CREATE INDEX grants_by_owner ON grants (issuer, subject, target, account, requested);
CREATE INDEX grants_by_time ON grants (requested);

CREATE TABLE grant_votes (
    grant_id    TEXT    NOT NULL REFERENCES grants (id),
    round       INTEGER NOT NULL, -- 0: on the request; n: on the n-th extension
    issuer      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    memberships TEXT    NOT NULL, -- JSON, the groups of the voter when voting
    approve     INTEGER NOT NULL,
    comment     TEXT    NOT NULL,
    time        INTEGER NOT NULL,
    PRIMARY KEY (grant_id, round, issuer, subject)
);
INSERT INTO grant_votes (grant_id, round, issuer, subject, name, memberships, approve, comment, time)
    SELECT grant_id, 0, issuer, subject, name, memberships, approve, comment, time FROM votes_before;
DROP TABLE votes_before;
