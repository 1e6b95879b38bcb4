-- +goose Up

-- What else was settled when it was asked for; JSON.
ALTER TABLE grants ADD COLUMN terms TEXT NOT NULL DEFAULT '{}';
