-- What others' devices and gateways send over MQTT and HTTP: which of their values are tags, and what waits to be one.

CREATE TABLE integrator_tag (
    edge_id    uuid NOT NULL REFERENCES edge,
    device     text NOT NULL,
    name       text NOT NULL,
    tag_id     int NOT NULL UNIQUE REFERENCES tag,
    adopted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (edge_id, device, name)
);
COMMENT ON TABLE integrator_tag IS 'which tag a value of a client is; a tag has one source, so that two are never merged';
COMMENT ON COLUMN integrator_tag.edge_id IS 'the client, as authenticated: integrators'' clients are edges that send no frames';
COMMENT ON COLUMN integrator_tag.device IS 'as the message or its topic names it; the client''s own name where neither does';

CREATE TABLE pending_tag (
    id            uuid PRIMARY KEY,
    edge_id       uuid NOT NULL REFERENCES edge,
    device        text NOT NULL,
    name          text NOT NULL,
    unit          text NOT NULL DEFAULT '',
    proposed_name text,
    stale_after_s int CHECK (stale_after_s > 0),
    sample        text NOT NULL DEFAULT '',
    readings      bigint NOT NULL DEFAULT 0,
    dropped       bigint NOT NULL DEFAULT 0,
    first_seen_at timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    dismissed_at  timestamptz,
    UNIQUE (edge_id, device, name)
);
COMMENT ON TABLE pending_tag IS 'values that came and are no tag yet: a person adopts or dismisses them';
COMMENT ON COLUMN pending_tag.sample IS 'the newest value as text';
COMMENT ON COLUMN pending_tag.readings IS 'how many came';
COMMENT ON COLUMN pending_tag.dropped IS 'how many of them are not held any more: the oldest, beyond what is held for one tag';
COMMENT ON COLUMN pending_tag.dismissed_at IS 'since when nothing is held of it; it is still counted';

CREATE TABLE pending_reading (
    pending_id uuid NOT NULL REFERENCES pending_tag ON DELETE CASCADE,
    time       timestamptz NOT NULL,
    value      float8,
    quality    int2 NOT NULL,
    PRIMARY KEY (pending_id, time)
);
COMMENT ON TABLE pending_reading IS 'readings held until their tag is adopted; bounded for each tag';

CREATE TABLE integrator_device (
    id           uuid PRIMARY KEY,
    edge_id      uuid NOT NULL REFERENCES edge,
    name         text NOT NULL,
    is_online    boolean NOT NULL,
    since_at     timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    UNIQUE (edge_id, name)
);
COMMENT ON TABLE integrator_device IS 'devices behind a client, by what they said of themselves: births, wills, values';
COMMENT ON COLUMN integrator_device.since_at IS 'when it was last said that it came or went';
