-- Who sends without keeping in touch.

ALTER TABLE edge ADD COLUMN is_sessionless boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN edge.is_sessionless IS 'it calls over HTTP when it has something to say: that it says nothing means nothing';
UPDATE edge SET is_sessionless = true WHERE name ~ '^http-[0-9a-f]{32}$' AND last_frame_at IS NULL AND boot IS NULL;
