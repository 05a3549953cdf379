-- What spans tenants: who they are, which edges may speak for them. Nothing here holds plant data.

CREATE TABLE platform.tenant (
    id          uuid PRIMARY KEY,
    slug        text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9_][a-z0-9_-]{0,62}$'),
    name        text NOT NULL,
    schema_name text NOT NULL UNIQUE CHECK (schema_name ~ '^t_[a-z0-9_]{1,60}$'),
    status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN platform.tenant.schema_name IS 'schema and role of the tenant carry this one name';

CREATE TABLE platform.edge_registry (
    tenant_id     uuid NOT NULL REFERENCES platform.tenant,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9_][a-z0-9_-]{0,62}$'),
    secret_sha256 bytea NOT NULL CHECK (length(secret_sha256) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz,
    PRIMARY KEY (tenant_id, name)
);
COMMENT ON COLUMN platform.edge_registry.secret_sha256 IS 'SHA-256 of a 256-bit random secret; the secret itself is known to the edge only';

CREATE TABLE platform.enroll_code (
    code_sha256 bytea PRIMARY KEY CHECK (length(code_sha256) = 32),
    tenant_id   uuid NOT NULL REFERENCES platform.tenant,
    edge_name   text NOT NULL,
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
COMMENT ON TABLE platform.enroll_code IS 'one-time codes that a new edge exchanges for its secret';
