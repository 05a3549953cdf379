-- Food safety: critical control points, checks, deviations; lots, where they came from, and holds on them.

CREATE TABLE ccp (
    id            uuid PRIMARY KEY,
    version       int NOT NULL DEFAULT 1,
    code          text NOT NULL UNIQUE,
    name          text NOT NULL,
    line_id       uuid NOT NULL REFERENCES line,
    equipment_id  uuid REFERENCES equipment,
    tag_name      text NOT NULL,
    unit          text NOT NULL,
    limit_low     float8,
    limit_high    float8,
    limit_version int NOT NULL DEFAULT 1
);
COMMENT ON COLUMN ccp.equipment_id IS 'where product passes the point; without it a deviation holds the whole batch of the line';

CREATE TABLE ccp_check (
    ccp_id        uuid NOT NULL REFERENCES ccp,
    from_time     timestamptz NOT NULL,
    to_time       timestamptz NOT NULL,
    verdict       text NOT NULL CHECK (verdict IN ('met', 'not_met', 'diverted', 'not_monitored')),
    value_min     float8,
    value_max     float8,
    value_last    float8,
    good          int NOT NULL,
    bad           int NOT NULL,
    missing       int NOT NULL,
    limit_version int NOT NULL,
    edge_id       uuid NOT NULL REFERENCES edge,
    PRIMARY KEY (ccp_id, from_time, edge_id)
);
COMMENT ON TABLE ccp_check IS 'written by the edge that judged; never changed';

CREATE TABLE lot (
    id             uuid PRIMARY KEY,
    version        int NOT NULL DEFAULT 1,
    code           text NOT NULL UNIQUE,
    kind           text NOT NULL CHECK (kind IN ('raw_material', 'packaging', 'wip', 'finished', 'rework')),
    sku_id         uuid REFERENCES sku,
    item_name      text NOT NULL,
    status         text NOT NULL CHECK (status IN ('in_process', 'quarantined', 'held', 'released')),
    quantity       float8 NOT NULL CHECK (quantity >= 0),
    unit           text NOT NULL,
    batch_id       uuid REFERENCES batch,
    equipment_id   uuid REFERENCES equipment,
    produced_range tstzrange CHECK (NOT isempty(produced_range))
);
COMMENT ON COLUMN lot.code IS 'traceability lot code: SKU-YJJJ-LB';
COMMENT ON COLUMN lot.equipment_id IS 'equipment at which the lot came into being (filler, packer)';
COMMENT ON COLUMN lot.produced_range IS 'when it was produced there; open above while it still is';
CREATE INDEX lot_produced ON lot USING gist (equipment_id, produced_range);
CREATE INDEX lot_status ON lot (status, id);

CREATE TABLE lot_edge (
    parent_id uuid NOT NULL REFERENCES lot,
    child_id  uuid NOT NULL REFERENCES lot,
    quantity  float8 NOT NULL CHECK (quantity > 0),
    unit      text NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (parent_id, child_id, at),
    CHECK (parent_id <> child_id)
);
CREATE INDEX lot_edge_child ON lot_edge (child_id);
COMMENT ON TABLE lot_edge IS 'parent went into child';

CREATE TABLE deviation (
    id              uuid PRIMARY KEY,
    version         int NOT NULL DEFAULT 1,
    ccp_id          uuid NOT NULL REFERENCES ccp,
    kind            text NOT NULL CHECK (kind IN ('limit', 'monitoring_gap', 'sensor_stuck')),
    status          text NOT NULL CHECK (status IN ('open', 'closed')),
    suspect         tstzrange NOT NULL,
    detected_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now(),
    value_extreme   float8,
    limit_low       float8,
    limit_high      float8,
    limit_version   int NOT NULL,
    edge_id         uuid NOT NULL REFERENCES edge,
    acknowledged_by uuid REFERENCES app_user,
    acknowledged_at timestamptz,
    comment         text,
    CHECK ((acknowledged_by IS NULL) = (acknowledged_at IS NULL))
);
COMMENT ON COLUMN deviation.id IS 'derived from edge, control point and window start: the same deviation told twice is one';
COMMENT ON COLUMN deviation.suspect IS 'from the last time in control to the first after; open above while it lasts';
CREATE INDEX deviation_open ON deviation (ccp_id) WHERE status = 'open';

CREATE SEQUENCE hold_number START 101;
CREATE TABLE hold (
    id           uuid PRIMARY KEY,
    version      int NOT NULL DEFAULT 1,
    code         text NOT NULL UNIQUE,
    deviation_id uuid UNIQUE REFERENCES deviation,
    reason       text NOT NULL,
    status       text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    widened      boolean NOT NULL DEFAULT false,
    placed_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN hold.widened IS 'the flow of product was not known well enough, so the whole batch is held';

CREATE TABLE hold_lot (
    hold_id  uuid NOT NULL REFERENCES hold,
    lot_id   uuid NOT NULL REFERENCES lot,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hold_id, lot_id)
);
CREATE INDEX hold_lot_lot ON hold_lot (lot_id);
COMMENT ON TABLE hold_lot IS 'lots are only ever added; taking one off is a disposition of its own';

CREATE TABLE outbox (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    kind       text NOT NULL,
    subject_id uuid NOT NULL,
    payload    jsonb NOT NULL
);
COMMENT ON TABLE outbox IS 'domain events, written in the transaction of the deed';
