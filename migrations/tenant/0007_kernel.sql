-- What every deed leaves behind: an audit entry, domain events, and the answer to an idempotent request.

CREATE TABLE audit_event (
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
COMMENT ON TABLE audit_event IS 'who did what, when and why; a chain: hash = SHA-256(prev_hash || seq as 8 bytes, big-endian || event in UTF-8), the first prev_hash is 32 zero bytes. Written by record() only';
COMMENT ON COLUMN audit_event.seq IS 'without gaps: a row that is gone is noticed';
COMMENT ON COLUMN audit_event.event IS 'canonical JSON (keys sorted, no white space): the truth; the columns before it repeat parts of it for queries, and `verify` compares them';
CREATE INDEX audit_event_entity ON audit_event (entity, entity_id, seq);
CREATE INDEX audit_event_actor ON audit_event (actor_id, seq);
CREATE INDEX audit_event_at ON audit_event (at_us);

CREATE TABLE audit_root (
    day        date PRIMARY KEY,
    last_seq   bigint NOT NULL,
    last_hash  bytea NOT NULL CHECK (length(last_hash) = 32),
    statement  text NOT NULL,
    signature  bytea NOT NULL CHECK (length(signature) = 64),
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    signed_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE audit_root IS 'Ed25519 signature over where the chain stood at the end of a UTC day; the same statement is written to a file that the customer keeps';
COMMENT ON COLUMN audit_root.statement IS 'canonical JSON; these bytes are signed';

CREATE TABLE domain_event (
    seq            bigint PRIMARY KEY CHECK (seq > 0),
    at             timestamptz NOT NULL DEFAULT now(),
    kind           text NOT NULL,
    aggregate      text NOT NULL,
    aggregate_id   uuid NOT NULL,
    aggregate_seq  bigint NOT NULL CHECK (aggregate_seq > 0),
    correlation_id text NOT NULL,
    payload        jsonb NOT NULL,
    UNIQUE (aggregate, aggregate_id, aggregate_seq)
);
COMMENT ON TABLE domain_event IS 'outbox and event store in one: written by record() in the transaction of the deed. seq follows the order of commits and has no gaps, so a consumer needs only the last seq it has seen';

-- One function writes both, last in a transaction: writers of a tenant queue here and nowhere else, so that the
-- chain has one order and no deadlock. Runs as the owner: a tenant's role can neither change nor invent a link.
CREATE FUNCTION record(audit text[], events text[]) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    entry text;
    body jsonb;
    last_seq bigint;
    last_hash bytea;
    this_hash bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('record ' || 'audit_event'::regclass::oid, 0));
    IF cardinality(audit) > 0 THEN
        SELECT seq, hash INTO last_seq, last_hash FROM audit_event ORDER BY seq DESC LIMIT 1;
        last_seq := coalesce(last_seq, 0);
        last_hash := coalesce(last_hash, decode(repeat('00', 32), 'hex'));
        FOREACH entry IN ARRAY audit LOOP
            last_seq := last_seq + 1;
            body := entry::jsonb;
            this_hash := sha256(last_hash || int8send(last_seq) || convert_to(entry, 'UTF8'));
            INSERT INTO audit_event (seq, at_us, actor_kind, actor_id, action, entity, entity_id, correlation_id,
                event, prev_hash, hash)
            VALUES (last_seq, (body->>'at_us')::bigint, body->'actor'->>'kind', body->'actor'->>'id',
                body->>'action', body->>'entity', body->>'entity_id', body->>'correlation_id',
                entry, last_hash, this_hash);
            last_hash := this_hash;
        END LOOP;
    END IF;
    IF cardinality(events) > 0 THEN
        SELECT max(seq) INTO last_seq FROM domain_event;
        last_seq := coalesce(last_seq, 0);
        FOREACH entry IN ARRAY events LOOP
            last_seq := last_seq + 1;
            body := entry::jsonb;
            INSERT INTO domain_event (seq, at, kind, aggregate, aggregate_id, aggregate_seq, correlation_id, payload)
            VALUES (last_seq, to_timestamp((body->>'at_us')::numeric / 1000000), body->>'kind', body->>'aggregate',
                (body->>'aggregate_id')::uuid,
                (SELECT coalesce(max(d.aggregate_seq), 0) + 1 FROM domain_event d
                 WHERE d.aggregate = body->>'aggregate' AND d.aggregate_id = (body->>'aggregate_id')::uuid),
                body->>'correlation_id', body->'payload');
        END LOOP;
    END IF;
END $$;

-- What earlier programs wrote to the outbox becomes the beginning of the event store. They may still write to the
-- outbox while hubs are replaced one by one; the next release drops it.
INSERT INTO domain_event (seq, at, kind, aggregate, aggregate_id, aggregate_seq, correlation_id, payload)
SELECT row_number() OVER (ORDER BY seq), at, kind, CASE WHEN kind LIKE 'Hold%' THEN 'hold' ELSE 'deviation' END,
    subject_id, row_number() OVER (PARTITION BY subject_id ORDER BY seq), subject_id::text, payload
FROM outbox ORDER BY seq;
COMMENT ON TABLE outbox IS 'as programs before 0.2 wrote it; domain_event has taken its place';

CREATE TABLE idempotency_key (
    actor          text NOT NULL,
    key            text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    request_sha256 bytea NOT NULL CHECK (length(request_sha256) = 32),
    status         smallint NOT NULL,
    etag           text,
    body           text,
    at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, key)
);
COMMENT ON TABLE idempotency_key IS 'answers given, stored in the transaction of the deed: the same request again gets the same answer and does nothing. Forgotten after a day';
COMMENT ON COLUMN idempotency_key.body IS 'null where the answer carried a secret, which is never stored';

CREATE TABLE signature (
    id             uuid PRIMARY KEY,
    at             timestamptz NOT NULL,
    user_id        uuid NOT NULL REFERENCES app_user,
    signer_name    text NOT NULL,
    meaning        text NOT NULL CHECK (meaning IN ('performed', 'reviewed', 'approved', 'released')),
    reason         text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
    record_type    text NOT NULL,
    record_id      uuid NOT NULL,
    record_version int NOT NULL,
    record         text NOT NULL,
    record_sha256  bytea NOT NULL CHECK (length(record_sha256) = 32),
    auth_factor    text NOT NULL CHECK (auth_factor IN ('password', 'identity_provider')),
    UNIQUE (record_type, record_id, record_version, meaning, user_id)
);
COMMENT ON TABLE signature IS 'a person stood by a record as it was then; never changed. It is superseded once the record has a later version';
COMMENT ON COLUMN signature.record IS 'canonical JSON of the record as it was signed; record_sha256 is over these bytes';
CREATE INDEX signature_record ON signature (record_type, record_id);

CREATE TABLE projection (
    name text PRIMARY KEY,
    seq  bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE projection IS 'the last domain_event that each projection has taken in, moved in the same transaction as its rows';
