-- +goose Up
-- What the provider said of groups when it was last asked with a refresh token, or at the sign-in: only what differs from that is
-- news, for some say the same for as long as the sign-in lasts.
ALTER TABLE vouchers ADD COLUMN groups TEXT NOT NULL DEFAULT ''; -- JSON; '' where it is not known
ALTER TABLE vouchers ADD COLUMN groups_in TEXT NOT NULL DEFAULT ''; -- id_token, userinfo
