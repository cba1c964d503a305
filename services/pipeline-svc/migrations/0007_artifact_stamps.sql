-- What an artifact's content looked like when its digest was taken; null where it may change.
ALTER TABLE artifacts ADD COLUMN stamp TEXT;
