-- The plant's hierarchy (ISA-95): plant, line, equipment; which way product flows; what is made.

CREATE TABLE plant (
    id      uuid PRIMARY KEY,
    version int NOT NULL DEFAULT 1,
    code    text NOT NULL UNIQUE,
    name    text NOT NULL,
    zone    text NOT NULL
);
COMMENT ON COLUMN plant.zone IS 'IANA time zone; times are UTC everywhere else';

CREATE TABLE line (
    id             uuid PRIMARY KEY,
    version        int NOT NULL DEFAULT 1,
    plant_id       uuid NOT NULL REFERENCES plant,
    code           text NOT NULL UNIQUE,
    name           text NOT NULL,
    target_per_min float8 NOT NULL CHECK (target_per_min > 0),
    rate_tag       text,
    key_tags       text[] NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN line.rate_tag IS 'name of the tag that carries the rate per minute; the line runs while it is above 0';
COMMENT ON COLUMN line.key_tags IS 'names of the tags shown first on the line''s page';

CREATE TABLE equipment (
    id      uuid PRIMARY KEY,
    line_id uuid NOT NULL REFERENCES line,
    code    text NOT NULL UNIQUE,
    name    text NOT NULL
);

CREATE TABLE flow_link (
    from_equipment_id uuid NOT NULL REFERENCES equipment,
    to_equipment_id   uuid NOT NULL REFERENCES equipment,
    residence_s_min   int NOT NULL CHECK (residence_s_min >= 0),
    residence_s_max   int NOT NULL,
    PRIMARY KEY (from_equipment_id, to_equipment_id),
    CHECK (residence_s_max >= residence_s_min),
    CHECK (from_equipment_id <> to_equipment_id)
);
COMMENT ON TABLE flow_link IS 'how long product takes from one piece of equipment to the next: shifts a suspect window downstream';

CREATE TABLE sku (
    id           uuid PRIMARY KEY,
    version      int NOT NULL DEFAULT 1,
    code         text NOT NULL UNIQUE,
    name         text NOT NULL,
    line_id      uuid REFERENCES line,
    allergens    text[] NOT NULL DEFAULT '{}',
    is_ftl       boolean NOT NULL DEFAULT false,
    jurisdiction text
);
COMMENT ON COLUMN sku.is_ftl IS 'on the FDA food traceability list';

CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;

CREATE TABLE batch (
    id           uuid PRIMARY KEY,
    version      int NOT NULL DEFAULT 1,
    code         text NOT NULL UNIQUE,
    sku_id       uuid NOT NULL REFERENCES sku,
    line_id      uuid NOT NULL REFERENCES line,
    state        text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'running', 'complete')),
    started_at   timestamptz,
    completed_at timestamptz,
    CHECK ((state = 'planned') = (started_at IS NULL)),
    CHECK ((state = 'complete') = (completed_at IS NOT NULL)),
    CHECK (completed_at >= started_at)
);
CREATE UNIQUE INDEX batch_one_running_per_line ON batch (line_id) WHERE state = 'running';

CREATE TABLE batch_interval (
    batch_id     uuid NOT NULL REFERENCES batch,
    equipment_id uuid NOT NULL REFERENCES equipment,
    during       tstzrange NOT NULL CHECK (NOT isempty(during)),
    PRIMARY KEY (batch_id, equipment_id),
    EXCLUDE USING gist (equipment_id WITH =, during WITH &&)
);
COMMENT ON TABLE batch_interval IS 'which batch was on which equipment when; open above while it still is';
