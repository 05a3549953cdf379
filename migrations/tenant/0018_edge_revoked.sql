-- An edge whose credentials were taken away says so in the list of edges.

ALTER TABLE edge ADD COLUMN revoked_at timestamptz;
COMMENT ON COLUMN edge.revoked_at IS 'when its credentials were taken away; null again once it has enrolled anew. platform.edge_registry decides who gets in';
