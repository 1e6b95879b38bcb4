-- +goose Up

-- What the issuer says of who signed in besides, as JSON; empty: nothing that the configuration names.
ALTER TABLE sign_ins ADD COLUMN claims TEXT NOT NULL DEFAULT '';
