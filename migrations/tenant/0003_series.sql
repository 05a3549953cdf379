-- Tags and their readings. One set of names on plain PostgreSQL and on TimescaleDB.

CREATE TABLE edge (
    id             uuid PRIMARY KEY,
    name           text NOT NULL UNIQUE,
    is_online      boolean NOT NULL DEFAULT false,
    boot           uuid,
    software       text,
    last_seen_at   timestamptz,
    last_frame_at  timestamptz,
    newest_time    timestamptz,
    backlog_frames bigint,
    oldest_time    timestamptz
);
COMMENT ON COLUMN edge.newest_time IS 'source time of the newest reading stored';
COMMENT ON COLUMN edge.oldest_time IS 'source time of the oldest record still waiting on the edge, as it last said';

CREATE TABLE tag (
    id           int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    edge_id      uuid REFERENCES edge,
    line_id      uuid REFERENCES line,
    unit         text NOT NULL DEFAULT '',
    description  text NOT NULL DEFAULT '',
    period_ms    int NOT NULL DEFAULT 0 CHECK (period_ms >= 0),
    is_simulated boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN tag.edge_id IS 'the one edge that publishes it; another edge claiming the name is refused, never merged';
COMMENT ON COLUMN tag.period_ms IS 'how often a reading is due; 0 = on change';

CREATE TABLE dictionary (
    edge_id    uuid NOT NULL REFERENCES edge,
    id         uuid NOT NULL,
    aliases    int[] NOT NULL,
    tag_ids    int[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (edge_id, id),
    CHECK (array_length(aliases, 1) IS NOT DISTINCT FROM array_length(tag_ids, 1))
);
COMMENT ON TABLE dictionary IS 'what an edge''s aliases mean; id is a hash of the content';

CREATE TABLE frame (
    edge_id     uuid NOT NULL,
    boot        uuid NOT NULL,
    lane        smallint NOT NULL CHECK (lane BETWEEN 0 AND 2),
    seq         bigint NOT NULL CHECK (seq >= 0),
    sealed_at   timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    readings    int NOT NULL,
    events      int NOT NULL,
    clock_synced boolean NOT NULL,
    PRIMARY KEY (edge_id, boot, lane, seq)
);
COMMENT ON TABLE frame IS 'identity of every frame stored, written in the transaction that stored its rows: a frame sent twice is stored once';

CREATE TABLE reading (
    time    timestamptz NOT NULL,
    tag_id  int NOT NULL,
    value   float8,
    quality int2 NOT NULL
) PARTITION BY RANGE (time);
COMMENT ON COLUMN reading.value IS 'in the tag''s unit; null exactly when the quality is bad';
COMMENT ON COLUMN reading.quality IS 'high 16 bits of the OPC UA status code, as signed bits';
CREATE INDEX reading_tag_time ON reading (tag_id, time DESC);

CREATE TABLE tag_last (
    tag_id  int PRIMARY KEY,
    time    timestamptz NOT NULL,
    value   float8,
    quality int2 NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE tag_last IS 'newest reading of each tag by source time; never goes backwards';

CREATE TABLE dead_letter (
    id          uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    edge_name   text NOT NULL,
    topic       text NOT NULL,
    crc32c      bigint NOT NULL,
    payload     bytea NOT NULL,
    reason      text NOT NULL,
    UNIQUE (edge_name, topic, crc32c, reason)
);
COMMENT ON TABLE dead_letter IS 'what could not be read, kept whole with the reason';

CREATE TABLE not_read (
    frame_edge_id uuid NOT NULL,
    tag_id   int NOT NULL,
    from_time timestamptz NOT NULL,
    to_time  timestamptz NOT NULL,
    due      int NOT NULL CHECK (due > 0),
    reason   text NOT NULL
);
CREATE INDEX not_read_tag_time ON not_read (tag_id, from_time);
COMMENT ON TABLE not_read IS 'readings that were due and not taken: good + bad + not read = due';

CREATE TABLE gap (
    id       uuid PRIMARY KEY,
    edge_id  uuid NOT NULL REFERENCES edge,
    from_time timestamptz NOT NULL,
    to_time  timestamptz NOT NULL,
    frames   bigint NOT NULL,
    readings bigint NOT NULL,
    reason   text NOT NULL
);
COMMENT ON TABLE gap IS 'records that an edge acquired and had to give up, and why';

CREATE TABLE alarm (
    id         uuid NOT NULL,
    edge_id    uuid NOT NULL REFERENCES edge,
    line_id    uuid REFERENCES line,
    code       text NOT NULL,
    subject    text NOT NULL,
    message    text NOT NULL,
    raised_at  timestamptz,
    cleared_at timestamptz,
    PRIMARY KEY (id)
);

-- Storage form: hypertables where TimescaleDB is there and preloaded, native daily partitions where it is not.
-- Runs as the owner: a tenant's role may add readings, not tables. Its search_path is the one of this migration.
CREATE FUNCTION ensure_partitions(from_day date, to_day date) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    day date;
    made int := 0;
    child text;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'reading'::regclass) <> 'p' THEN
        RETURN 0;  -- a hypertable makes its own chunks
    END IF;
    FOR day IN SELECT generate_series(from_day, to_day, interval '1 day')::date LOOP
        child := 'reading_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(format('%I', child)) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF reading FOR VALUES FROM (%L) TO (%L)',
                    child, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- Rows of that day are in the default partition already: they stay there, nothing is lost.
                RAISE NOTICE 'day % stays in the default partition', day;
            END;
        END IF;
    END LOOP;
    RETURN made;
END $$;

CREATE FUNCTION storage_form() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN (SELECT relkind FROM pg_class WHERE oid = 'reading'::regclass) = 'p' THEN 'plain'
        WHEN current_setting('timescaledb.license', true) = 'timescale' THEN 'timescaledb-community'
        ELSE 'timescaledb-apache'
    END
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        DROP TABLE reading;
        CREATE TABLE reading (time timestamptz NOT NULL, tag_id int NOT NULL, value float8, quality int2 NOT NULL);
        CREATE INDEX reading_tag_time ON reading (tag_id, time DESC);
        PERFORM create_hypertable('reading'::regclass, 'time', create_default_indexes => false,
            chunk_time_interval => interval '1 day');
        IF current_setting('timescaledb.license', true) = 'timescale' THEN
            ALTER TABLE reading SET (timescaledb.compress, timescaledb.compress_segmentby = 'tag_id',
                timescaledb.compress_orderby = 'time DESC');
            PERFORM add_compression_policy('reading'::regclass, interval '1 day');
        END IF;
    ELSE
        CREATE TABLE reading_default PARTITION OF reading DEFAULT;
        PERFORM ensure_partitions((now() - interval '1 day')::date, (now() + interval '7 days')::date);
    END IF;
END $$;
