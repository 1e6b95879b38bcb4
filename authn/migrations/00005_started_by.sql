-- +goose Up
-- Who started a workload's job, as JSON; empty where nobody is known.
ALTER TABLE sign_ins ADD COLUMN started_by TEXT NOT NULL DEFAULT '';
