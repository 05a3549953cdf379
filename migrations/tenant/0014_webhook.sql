-- Webhooks: where events are sent, what is still to be sent, and how every attempt went.

CREATE TABLE webhook (
    id                 uuid PRIMARY KEY,
    version            int NOT NULL DEFAULT 1,
    url                text NOT NULL,
    description        text NOT NULL DEFAULT '',
    kinds              text[] NOT NULL,
    is_active          boolean NOT NULL DEFAULT true,
    secret_sealed      bytea NOT NULL,
    previous_sealed    bytea,
    previous_until     timestamptz,
    seq                bigint NOT NULL,
    failing_since      timestamptz,
    deactivated_because text,
    created_at         timestamptz NOT NULL,
    CHECK ((previous_sealed IS NULL) = (previous_until IS NULL)),
    CONSTRAINT "a webhook's address has at most 2000 characters" CHECK (length(url) <= 2000),
    CONSTRAINT "a description has at most 500 characters" CHECK (length(description) <= 500)
);
COMMENT ON COLUMN webhook.kinds IS 'kinds of events that are sent: `BatchStarted`, `Batch*` or `*`';
COMMENT ON COLUMN webhook.secret_sealed IS 'the signing key, sealed under the hub''s sealing key for `webhook <id>`';
COMMENT ON COLUMN webhook.previous_sealed IS 'the key before; requests are signed with both until previous_until';
COMMENT ON COLUMN webhook.seq IS 'the last domain_event that was looked at for this webhook; moved with the deliveries it made';
COMMENT ON COLUMN webhook.failing_since IS 'when the first failure since the last success was';

CREATE TABLE webhook_delivery (
    id              uuid PRIMARY KEY,
    ordinal         bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    webhook_id      uuid NOT NULL REFERENCES webhook ON DELETE CASCADE,
    message_id      text NOT NULL,
    seq             bigint,
    kind            text NOT NULL,
    aggregate       text,
    aggregate_id    uuid,
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'dead')),
    is_replayed     boolean NOT NULL DEFAULT false,
    attempts        int NOT NULL DEFAULT 0,
    failures        int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    leased_until    timestamptz,
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    CHECK ((status = 'pending') = (finished_at IS NULL))
);
COMMENT ON TABLE webhook_delivery IS 'one event for one webhook; the queue is its pending rows, so that a hub that was killed is resumed by any other';
COMMENT ON COLUMN webhook_delivery.ordinal IS 'events of one aggregate are sent in this order, each after the one before was delivered or given up';
COMMENT ON COLUMN webhook_delivery.message_id IS '`webhook-id` of every attempt, the same when sent again: the receiver tells a duplicate by it';
COMMENT ON COLUMN webhook_delivery.seq IS 'the domain_event; null for a test';
COMMENT ON COLUMN webhook_delivery.failures IS 'attempts that failed since it was queued or sent again by hand';
COMMENT ON COLUMN webhook_delivery.leased_until IS 'a hub is sending it; one that is gone loses it then';
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_delivery_order ON webhook_delivery (webhook_id, aggregate, aggregate_id, ordinal) WHERE status = 'pending';
CREATE INDEX webhook_delivery_log ON webhook_delivery (webhook_id, ordinal);
CREATE INDEX webhook_delivery_finished ON webhook_delivery (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE webhook_attempt (
    delivery_id uuid NOT NULL REFERENCES webhook_delivery ON DELETE CASCADE,
    attempt     int NOT NULL,
    at          timestamptz NOT NULL,
    duration_ms int NOT NULL,
    status      int,
    error       text,
    response    text,
    PRIMARY KEY (delivery_id, attempt)
);
COMMENT ON TABLE webhook_attempt IS 'how each attempt went; an attempt without a row was cut off with its hub';
COMMENT ON COLUMN webhook_attempt.status IS 'HTTP status; null when there was no answer';
COMMENT ON COLUMN webhook_attempt.response IS 'the beginning of the answer';
