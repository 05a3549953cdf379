-- Codes that are listed and withdrawn: each has a name of its own beside its secret.

ALTER TABLE platform.enroll_code ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE platform.enroll_code ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE platform.enroll_code ADD COLUMN created_by text;
ALTER TABLE platform.enroll_code ADD COLUMN withdrawn_at timestamptz;
COMMENT ON COLUMN platform.enroll_code.created_by IS 'who made it, by name; the tenant''s audit chain knows more';
CREATE UNIQUE INDEX enroll_code_id ON platform.enroll_code (id);
CREATE INDEX enroll_code_open ON platform.enroll_code (tenant_id, id) WHERE used_at IS NULL AND withdrawn_at IS NULL;
