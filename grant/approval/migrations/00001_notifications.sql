-- +goose Up

-- What is to be told to whom: one row for an event and a channel, which is told once. Times are nanoseconds since 1970.
CREATE TABLE notifications (
    event    INTEGER NOT NULL, -- the number of the grant's event
    channel  TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    grant_id TEXT    NOT NULL,
    body     TEXT    NOT NULL, -- JSON
    state    TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try INTEGER NOT NULL,
    error    TEXT    NOT NULL DEFAULT '', -- of the last attempt
    created  INTEGER NOT NULL,
    done     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (event, channel)
);
CREATE INDEX notifications_pending ON notifications (channel, next_try) WHERE state = 'pending';
CREATE INDEX notifications_order ON notifications (channel, grant_id, event) WHERE state = 'pending';
CREATE INDEX notifications_done ON notifications (done) WHERE state <> 'pending';

-- What a channel has for a grant: the message that is changed when the grant does.
CREATE TABLE notification_refs (
    channel  TEXT    NOT NULL,
    grant_id TEXT    NOT NULL,
    ref      TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    PRIMARY KEY (channel, grant_id)
);

-- Decisions that came in and counted, so that one that comes again is known.
CREATE TABLE decisions_received (
    channel  TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    digest   BLOB    NOT NULL, -- SHA-256 of what it said
    grant_id TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    PRIMARY KEY (channel, id)
);
