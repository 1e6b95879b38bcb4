-- +goose Up

-- Approvals one after the other: at which of them, from 1, a vote counts.
ALTER TABLE grant_votes ADD COLUMN stage INTEGER NOT NULL DEFAULT 1 CHECK (stage >= 1);
