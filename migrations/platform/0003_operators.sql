-- What the operators of the platform do: their own audit chain, and what is left of a tenant that was deleted.

CREATE TABLE platform.audit_event (
    seq            bigint PRIMARY KEY CHECK (seq > 0),
    at_us          bigint NOT NULL,
    actor_kind     text NOT NULL,
    actor_id       text,
    action         text NOT NULL,
    entity         text NOT NULL,
    entity_id      text,
    correlation_id text,
    event          text NOT NULL,
    prev_hash      bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash           bytea NOT NULL CHECK (length(hash) = 32)
);
COMMENT ON TABLE platform.audit_event IS 'who did what to which tenant, when and why; a chain of the same form as each tenant''s own. Written by platform.record() only';
CREATE INDEX audit_event_entity ON platform.audit_event (entity, entity_id, seq);

CREATE FUNCTION platform.record(audit text[]) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    entry text;
    body jsonb;
    last_seq bigint;
    last_hash bytea;
    this_hash bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('record ' || 'platform.audit_event'::regclass::oid, 0));
    SELECT seq, hash INTO last_seq, last_hash FROM platform.audit_event ORDER BY seq DESC LIMIT 1;
    last_seq := coalesce(last_seq, 0);
    last_hash := coalesce(last_hash, decode(repeat('00', 32), 'hex'));
    FOREACH entry IN ARRAY audit LOOP
        last_seq := last_seq + 1;
        body := entry::jsonb;
        this_hash := sha256(last_hash || int8send(last_seq) || convert_to(entry, 'UTF8'));
        INSERT INTO platform.audit_event (seq, at_us, actor_kind, actor_id, action, entity, entity_id,
            correlation_id, event, prev_hash, hash)
        VALUES (last_seq, (body->>'at_us')::bigint, body->'actor'->>'kind', body->'actor'->>'id',
            body->>'action', body->>'entity', body->>'entity_id', body->>'correlation_id',
            entry, last_hash, this_hash);
        last_hash := this_hash;
    END LOOP;
END $$;
COMMENT ON FUNCTION platform.record IS 'the only way into platform.audit_event; the login role may call it and nothing else';

CREATE TABLE platform.tombstone (
    slug       text PRIMARY KEY,
    tenant_id  uuid NOT NULL,
    name       text NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz NOT NULL,
    deleted_by text NOT NULL,
    because    text NOT NULL,
    last_seq   bigint NOT NULL,
    last_hash  bytea NOT NULL CHECK (length(last_hash) = 32)
);
COMMENT ON TABLE platform.tombstone IS 'tenants that were deleted. Their slugs are not used again: tokens, keys and topics of the old tenant name it';
COMMENT ON COLUMN platform.tombstone.last_hash IS 'where the tenant''s audit chain ended: an export made before can be checked against it';

ALTER TABLE platform.tenant ADD COLUMN rights_sha256 bytea;
COMMENT ON COLUMN platform.tenant.rights_sha256 IS 'which grants the tenant''s role was last given, so that they are given anew only when a program changes them';
ALTER TABLE platform.tenant ADD CONSTRAINT "a tenant's name is 1 to 200 printable characters"
    CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]') NOT VALID;

-- What belongs to a tenant goes with it.
ALTER TABLE platform.edge_registry DROP CONSTRAINT edge_registry_tenant_id_fkey,
    ADD CONSTRAINT edge_registry_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES platform.tenant ON DELETE CASCADE;
ALTER TABLE platform.enroll_code DROP CONSTRAINT enroll_code_tenant_id_fkey,
    ADD CONSTRAINT enroll_code_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES platform.tenant ON DELETE CASCADE;
