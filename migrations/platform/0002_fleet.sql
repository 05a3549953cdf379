-- The fleet of tenants: where each one's schema stands, and what each has been set to.

ALTER TABLE platform.tenant ADD COLUMN version int NOT NULL DEFAULT 1;
ALTER TABLE platform.tenant ADD COLUMN schema_version bigint NOT NULL DEFAULT 0;
ALTER TABLE platform.tenant ADD COLUMN migrated_at timestamptz;
ALTER TABLE platform.tenant ADD COLUMN migration_error text;
ALTER TABLE platform.tenant ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
ALTER TABLE platform.tenant ADD COLUMN suspended_at timestamptz;
ALTER TABLE platform.tenant ADD COLUMN suspended_because text;
COMMENT ON COLUMN platform.tenant.schema_version IS 'number of the newest file applied to the tenant''s schema, written in the same transaction';
COMMENT ON COLUMN platform.tenant.migration_error IS 'why the last attempt to migrate this tenant failed; null after a success';
COMMENT ON COLUMN platform.tenant.settings IS 'what the tenant has configured; the program knows the form';
