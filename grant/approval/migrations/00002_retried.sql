-- +goose Up

-- When somebody had it tried anew; a day after that it is given up again.
ALTER TABLE notifications ADD COLUMN retried INTEGER NOT NULL DEFAULT 0;
