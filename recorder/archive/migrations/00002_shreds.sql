-- +goose Up
-- What was destroyed here and is still to be deleted there.
CREATE TABLE archive_shreds (
	place   TEXT NOT NULL,
	session TEXT NOT NULL,
	leaf    INTEGER NOT NULL,           -- which says that the recording was destroyed
	since   INTEGER NOT NULL,           -- milliseconds, when that was
	locked  INTEGER NOT NULL DEFAULT 0, -- milliseconds, until when the store deletes it for nobody
	tries   INTEGER NOT NULL DEFAULT 0,
	next    INTEGER NOT NULL DEFAULT 0, -- milliseconds, when it is tried again
	error   TEXT NOT NULL DEFAULT '',
	stuck   INTEGER NOT NULL DEFAULT 0, -- 1: that was told
	PRIMARY KEY (place, session)
);
-- How many objects are in which state, so that nobody counts them.
ALTER TABLE archive_places ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE archive_places ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE archive_places ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0; -- of those archived
UPDATE archive_places SET
	waiting = (SELECT count(*) FROM archive_objects o WHERE o.place = archive_places.place AND o.state = 'waiting'),
	archived = (SELECT count(*) FROM archive_objects o WHERE o.place = archive_places.place AND o.state = 'archived'),
	bytes = (SELECT CAST(coalesce(sum(o.bytes), 0) AS BIGINT) FROM archive_objects o WHERE o.place = archive_places.place AND o.state = 'archived');
