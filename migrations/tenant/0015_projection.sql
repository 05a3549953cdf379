-- Projections: tables that are nothing but the event store seen another way, and can be made from it again.

ALTER TABLE projection ADD COLUMN generation int NOT NULL DEFAULT 1;
ALTER TABLE projection ADD COLUMN rebuilding int;
ALTER TABLE projection ADD COLUMN rebuilt_seq bigint;
ALTER TABLE projection ADD COLUMN rebuilt_at timestamptz;
ALTER TABLE projection ADD CONSTRAINT "a rebuild has a generation and a place"
    CHECK ((rebuilding IS NULL) = (rebuilt_seq IS NULL));
COMMENT ON COLUMN projection.generation IS 'rows of this generation are read';
COMMENT ON COLUMN projection.rebuilding IS 'rows of this generation are being made beside it; it takes over when it has caught up';
COMMENT ON COLUMN projection.rebuilt_seq IS 'the last domain_event that the rebuild has taken in';
INSERT INTO projection (name) VALUES ('search_entry'), ('activity_day') ON CONFLICT DO NOTHING;

CREATE TABLE search_entry (
    generation int NOT NULL,
    entity     text NOT NULL,
    id         uuid NOT NULL,
    code       text NOT NULL,
    title      text NOT NULL,
    event_seq  bigint NOT NULL,
    PRIMARY KEY (generation, entity, id)
);
COMMENT ON TABLE search_entry IS 'projection: every record that has a code or a name, until it is deleted';

CREATE TABLE activity_day (
    generation int NOT NULL,
    day        date NOT NULL,
    aggregate  text NOT NULL,
    kind       text NOT NULL,
    events     bigint NOT NULL,
    last_seq   bigint NOT NULL,
    last_at    timestamptz NOT NULL,
    PRIMARY KEY (generation, day, aggregate, kind)
);
COMMENT ON TABLE activity_day IS 'projection: how much of what happened on each UTC day';

CREATE TABLE event_dead_letter (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    projection   text NOT NULL REFERENCES projection,
    generation   int NOT NULL,
    seq          bigint NOT NULL,
    aggregate    text NOT NULL,
    aggregate_id uuid NOT NULL,
    reason       text NOT NULL,
    at           timestamptz NOT NULL,
    UNIQUE (projection, generation, seq)
);
COMMENT ON TABLE event_dead_letter IS 'events that a projection could not take in, and those of the same aggregate that wait behind one; other aggregates go on';
CREATE INDEX event_dead_letter_aggregate ON event_dead_letter (projection, generation, aggregate, aggregate_id, seq);
