-- +goose Up

-- The voter's e-mail address when voting: one person has one vote, by whichever of their identities.
ALTER TABLE grant_votes ADD COLUMN email TEXT NOT NULL DEFAULT '';
