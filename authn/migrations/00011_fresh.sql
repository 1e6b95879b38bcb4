-- +goose Up
-- 1: the client asks that the person proves themselves anew, however lately they did.
ALTER TABLE auth_requests ADD COLUMN fresh INTEGER NOT NULL DEFAULT 0;
