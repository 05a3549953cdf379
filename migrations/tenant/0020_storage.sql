-- Rollups that late data corrects, partitions that take late days in, retention, compression, and what `doctor` says
-- of them. One set of names on plain PostgreSQL and on TimescaleDB: only the bodies know which form it is.
--
-- Everything is in UTC: a bucket begins at a multiple of its width since 2000-01-01 00:00 UTC.

ALTER TABLE tag_last ADD COLUMN received_at timestamptz;
COMMENT ON COLUMN tag_last.received_at IS 'when the hub stored it; null for what was stored before the hub noted it';

-- === what is dirty ===

CREATE TABLE rollup_dirty (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag_ids   int[],
    from_time timestamptz NOT NULL,
    to_time   timestamptz NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT now(),
    CHECK (from_time < to_time)
);
CREATE INDEX rollup_dirty_to_time ON rollup_dirty (to_time);
COMMENT ON TABLE rollup_dirty IS
    'whole minutes of one hour whose rollups are not yet what the readings say; written in the transaction that changed the readings';
COMMENT ON COLUMN rollup_dirty.tag_ids IS 'null: every tag';
COMMENT ON COLUMN rollup_dirty.to_time IS 'exclusive';

CREATE FUNCTION mark_rollups(low timestamptz, high timestamptz) RETURNS bigint LANGUAGE sql AS $$
    WITH marked AS (
        INSERT INTO rollup_dirty (tag_ids, from_time, to_time)
        SELECT NULL, h, h + interval '1 hour'
        FROM generate_series(date_bin('1 hour', low, '2000-01-01Z'), high, interval '1 hour') h WHERE h < high
        RETURNING 1)
    SELECT count(*) FROM marked
$$;
COMMENT ON FUNCTION mark_rollups IS 'has the rollups of these hours made anew from the readings, for every tag';

-- === buckets ===

CREATE TYPE series_bucket AS (
    tag_id int, bucket timestamptz, n int, n_good int, n_bad int,
    min float8, min_at timestamptz, max float8, max_at timestamptz,
    first float8, first_at timestamptz, last float8, last_at timestamptz, last_quality int2,
    sum_good float8, tw_sum float8, tw_seconds float8
);

CREATE TABLE rollup_1m (
    tag_id       int NOT NULL,
    bucket       timestamptz NOT NULL,
    n            int NOT NULL,
    n_good       int NOT NULL,
    n_bad        int NOT NULL,
    min          float8,
    min_at       timestamptz,
    max          float8,
    max_at       timestamptz,
    first        float8,
    first_at     timestamptz NOT NULL,
    last         float8,
    last_at      timestamptz NOT NULL,
    last_quality int2 NOT NULL,
    sum_good     float8 NOT NULL,
    tw_sum       float8 NOT NULL,
    tw_seconds   float8 NOT NULL,
    PRIMARY KEY (tag_id, bucket)
) PARTITION BY RANGE (bucket);
CREATE TABLE rollup_1m_default PARTITION OF rollup_1m DEFAULT;
CREATE TABLE rollup_1h (LIKE rollup_1m, PRIMARY KEY (tag_id, bucket));
CREATE TABLE rollup_1d (LIKE rollup_1m, PRIMARY KEY (tag_id, bucket));
COMMENT ON TABLE rollup_1m IS 'what the readings of a tag in one minute were; made from them by refresh_rollups alone';
COMMENT ON TABLE rollup_1h IS 'as rollup_1m, of one hour';
COMMENT ON TABLE rollup_1d IS 'as rollup_1m, of one day of UTC';
COMMENT ON COLUMN rollup_1m.n IS 'readings, of whatever quality; n - n_good - n_bad are uncertain';
COMMENT ON COLUMN rollup_1m.n_bad IS 'readings without a value';
COMMENT ON COLUMN rollup_1m.min IS 'least value, uncertain ones too: an excursion is never smoothed away';
COMMENT ON COLUMN rollup_1m.first IS 'value of the first reading; null when that is bad';
COMMENT ON COLUMN rollup_1m.sum_good IS 'sum of the good values; divided by n_good the mean of the readings';
COMMENT ON COLUMN rollup_1m.tw_sum IS 'value × seconds, each good value until the next reading in the bucket; divided by tw_seconds the mean over time';

CREATE FUNCTION hold_seconds(of_tag int) RETURNS float8 LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN period_ms = 0 THEN 'infinity'::float8 ELSE greatest(300, 3 * period_ms / 1000.0)::float8 END
    FROM tag WHERE id = of_tag
$$;
COMMENT ON FUNCTION hold_seconds IS
    'how long a value stands for what follows it when nothing comes: for ever for a tag that speaks on change, else three periods, at least five minutes';

-- The definition of a bucket. Readings of the same time are taken in the order of value and quality, so that the order
-- in which they arrived means nothing.
CREATE FUNCTION raw_buckets(of_tag int, low timestamptz, high timestamptz, width interval)
RETURNS SETOF series_bucket LANGUAGE sql STABLE AS $$
    WITH h AS MATERIALIZED (
        SELECT hold_seconds(of_tag) AS seconds
    ), r AS (
        SELECT time, value, quality, date_bin(width, time, '2000-01-01Z') AS bucket,
            value IS NOT NULL AND quality BETWEEN 0 AND 16383 AS good
        FROM reading WHERE tag_id = of_tag AND time >= low AND time < high
    ), w AS (
        SELECT r.*, lag(time) OVER o IS NULL AS is_first, lead(time) OVER o IS NULL AS is_last,
            least(date_part('epoch', lead(time) OVER o - time), (SELECT seconds FROM h)) AS held,
            min(value) OVER p AS least, max(value) OVER p AS greatest
        FROM r WINDOW o AS (PARTITION BY bucket ORDER BY time, value, quality), p AS (PARTITION BY bucket)
    )
    SELECT of_tag, bucket, count(*)::int, (count(*) FILTER (WHERE good))::int, (count(*) FILTER (WHERE value IS NULL))::int,
        min(value), min(time) FILTER (WHERE value = w.least), max(value), min(time) FILTER (WHERE value = w.greatest),
        max(value) FILTER (WHERE is_first), min(time), max(value) FILTER (WHERE is_last), max(time),
        max(quality) FILTER (WHERE is_last), coalesce(sum(value) FILTER (WHERE good), 0),
        coalesce(sum(value * held) FILTER (WHERE good AND NOT is_last), 0),
        coalesce(sum(held) FILTER (WHERE good AND NOT is_last), 0)
    FROM w GROUP BY bucket ORDER BY bucket
$$;

-- Narrow buckets of one tag as wider ones: the same as from the readings themselves.
CREATE FUNCTION combine_buckets(parts series_bucket[], width interval, hold float8)
RETURNS SETOF series_bucket LANGUAGE sql IMMUTABLE AS $$
    WITH b AS (
        SELECT p.*, date_bin(width, p.bucket, '2000-01-01Z') AS up,
            p.last IS NOT NULL AND p.last_quality BETWEEN 0 AND 16383 AS ends_good
        FROM unnest(parts) p
    ), w AS (
        SELECT b.*, lag(bucket) OVER o IS NULL AS is_first, lead(bucket) OVER o IS NULL AS is_last,
            least(date_part('epoch', lead(first_at) OVER o - last_at), hold) AS held,
            min(b.min) OVER p AS least, max(b.max) OVER p AS greatest
        FROM b WINDOW o AS (PARTITION BY up ORDER BY bucket), p AS (PARTITION BY up)
    )
    SELECT tag_id, up, sum(n)::int, sum(n_good)::int, sum(n_bad)::int,
        min(w.min), min(min_at) FILTER (WHERE w.min = w.least), max(w.max), min(max_at) FILTER (WHERE w.max = w.greatest),
        max(w.first) FILTER (WHERE is_first), min(first_at), max(w.last) FILTER (WHERE is_last), max(last_at),
        max(last_quality) FILTER (WHERE is_last), sum(sum_good),
        sum(tw_sum + CASE WHEN ends_good AND NOT is_last THEN w.last * held ELSE 0 END),
        sum(tw_seconds + CASE WHEN ends_good AND NOT is_last THEN held ELSE 0 END)
    FROM w GROUP BY tag_id, up ORDER BY up
$$;

-- === bringing rollups up to date ===

CREATE TABLE storage_horizon (
    raw_from timestamptz PRIMARY KEY
);
COMMENT ON TABLE storage_horizon IS
    'readings before the latest of these were dropped by retention: their rollups are all that is left and are not made anew';

CREATE FUNCTION refresh_rollups(until timestamptz, marks_max int) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    taken int;
    tags int[];
    lows timestamptz[];
    highs timestamptz[];
    hours timestamptz[];
    raw_since timestamptz := (SELECT max(raw_from) FROM storage_horizon);
BEGIN
    -- Two at a time could write an older result over a newer one.
    IF NOT pg_try_advisory_xact_lock(hashtextextended('rollups ' || 'rollup_1m'::regclass::oid, 0)) THEN
        RETURN NULL;
    END IF;
    WITH due AS (
        SELECT id FROM rollup_dirty WHERE to_time <= until AND tag_ids IS NOT NULL ORDER BY id LIMIT marks_max
    ), whole AS (
        SELECT id FROM rollup_dirty WHERE to_time <= until AND tag_ids IS NULL AND NOT EXISTS (SELECT FROM due)
        ORDER BY id LIMIT 1
    ), gone AS (
        DELETE FROM rollup_dirty WHERE id IN (SELECT id FROM due UNION ALL SELECT id FROM whole) RETURNING *
    ), each AS (
        SELECT t.tag_id, date_bin('1 hour', g.from_time, '2000-01-01Z') AS hour, min(g.from_time) AS low, max(g.to_time) AS high
        FROM gone g CROSS JOIN LATERAL unnest(coalesce(g.tag_ids, (SELECT array_agg(id) FROM tag))) AS t (tag_id)
        GROUP BY 1, 2
    )
    SELECT (SELECT count(*) FROM gone), array_agg(tag_id ORDER BY tag_id, hour), array_agg(low ORDER BY tag_id, hour),
        array_agg(high ORDER BY tag_id, hour), array_agg(hour ORDER BY tag_id, hour)
    INTO taken, tags, lows, highs, hours FROM each WHERE raw_since IS NULL OR low >= raw_since;
    IF tags IS NULL THEN
        RETURN taken;
    END IF;
    DELETE FROM rollup_1m m USING unnest(tags, lows, highs) AS d (tag_id, low, high)
    WHERE m.tag_id = d.tag_id AND m.bucket >= d.low AND m.bucket < d.high;
    INSERT INTO rollup_1m SELECT b.* FROM unnest(tags, lows, highs) AS d (tag_id, low, high)
    CROSS JOIN LATERAL raw_buckets(d.tag_id, d.low, d.high, '1 minute') b;
    DELETE FROM rollup_1h h USING unnest(tags, hours) AS d (tag_id, hour) WHERE h.tag_id = d.tag_id AND h.bucket = d.hour;
    INSERT INTO rollup_1h SELECT c.* FROM unnest(tags, hours) AS d (tag_id, hour)
    CROSS JOIN LATERAL combine_buckets(ARRAY(SELECT ROW(m.*)::series_bucket FROM rollup_1m m
        WHERE m.tag_id = d.tag_id AND m.bucket >= d.hour AND m.bucket < d.hour + interval '1 hour'),
        '1 hour', hold_seconds(d.tag_id)) c;
    DELETE FROM rollup_1d r USING unnest(tags, hours) AS d (tag_id, hour)
    WHERE r.tag_id = d.tag_id AND r.bucket = date_bin('1 day', d.hour, '2000-01-01Z');
    INSERT INTO rollup_1d SELECT c.*
    FROM (SELECT DISTINCT u.tag_id, date_bin('1 day', u.hour, '2000-01-01Z') AS day FROM unnest(tags, hours) AS u (tag_id, hour)) d
    CROSS JOIN LATERAL combine_buckets(ARRAY(SELECT ROW(h.*)::series_bucket FROM rollup_1h h
        WHERE h.tag_id = d.tag_id AND h.bucket >= d.day AND h.bucket < d.day + interval '1 day'),
        '1 day', hold_seconds(d.tag_id)) c;
    RETURN taken;
END $$;
COMMENT ON FUNCTION refresh_rollups IS
    'makes the rollups of some marks that end before until; gives how many marks, 0: none is left, null: another hub is at it';

-- === reading them ===

CREATE VIEW reading_1m AS SELECT tag_id, bucket, n, n_good, min, max, first, last, sum_good, tw_sum, tw_seconds,
    n_bad, min_at, max_at, first_at, last_at, last_quality FROM rollup_1m;
CREATE VIEW reading_1h AS SELECT tag_id, bucket, n, n_good, min, max, first, last, sum_good, tw_sum, tw_seconds,
    n_bad, min_at, max_at, first_at, last_at, last_quality FROM rollup_1h;
CREATE VIEW reading_1d AS SELECT tag_id, bucket, n, n_good, min, max, first, last, sum_good, tw_sum, tw_seconds,
    n_bad, min_at, max_at, first_at, last_at, last_quality FROM rollup_1d;
COMMENT ON VIEW reading_1m IS 'minutes whose rollup is made; what is not in it yet, or not right yet, has a mark in rollup_dirty';

CREATE FUNCTION dirty_buckets(of_tag int, low timestamptz, high timestamptz, width interval)
RETURNS SETOF timestamptz LANGUAGE sql STABLE AS $$
    SELECT DISTINCT b FROM rollup_dirty d
    CROSS JOIN LATERAL generate_series(greatest(date_bin(width, d.from_time, '2000-01-01Z'), low),
        least(d.to_time, high) - interval '1 microsecond', width) b
    WHERE d.to_time > low AND d.from_time < high AND (d.tag_ids IS NULL OR of_tag = ANY (d.tag_ids))
$$;
COMMENT ON FUNCTION dirty_buckets IS 'begins of the buckets from low to high, both at the begin of one, whose rollup is not right yet';

-- Buckets as the readings have them at this moment: from the rollups, and from the readings where those are dirty.
-- low and high are begins of buckets.
CREATE FUNCTION minute_buckets(of_tag int, low timestamptz, high timestamptz)
RETURNS SETOF series_bucket LANGUAGE sql STABLE AS $$
    WITH dirty AS MATERIALIZED (SELECT b FROM dirty_buckets(of_tag, low, high, '1 minute') b)
    SELECT m.* FROM rollup_1m m WHERE m.tag_id = of_tag AND m.bucket >= low AND m.bucket < high
        AND m.bucket NOT IN (SELECT b FROM dirty)
    UNION ALL
    SELECT r.* FROM (SELECT min(b) AS from_b, max(b) AS to_b FROM dirty GROUP BY date_bin('1 hour', b, '2000-01-01Z')) h
    CROSS JOIN LATERAL raw_buckets(of_tag, h.from_b, h.to_b + interval '1 minute', '1 minute') r
    WHERE r.bucket IN (SELECT b FROM dirty)
$$;

CREATE FUNCTION hour_buckets(of_tag int, low timestamptz, high timestamptz)
RETURNS SETOF series_bucket LANGUAGE sql STABLE AS $$
    WITH dirty AS MATERIALIZED (SELECT b FROM dirty_buckets(of_tag, low, high, '1 hour') b)
    SELECT m.* FROM rollup_1h m WHERE m.tag_id = of_tag AND m.bucket >= low AND m.bucket < high
        AND m.bucket NOT IN (SELECT b FROM dirty)
    UNION ALL
    SELECT c.* FROM dirty CROSS JOIN LATERAL combine_buckets(
        ARRAY(SELECT m FROM minute_buckets(of_tag, dirty.b, dirty.b + interval '1 hour') m), '1 hour', hold_seconds(of_tag)) c
$$;

CREATE FUNCTION day_buckets(of_tag int, low timestamptz, high timestamptz)
RETURNS SETOF series_bucket LANGUAGE sql STABLE AS $$
    WITH dirty AS MATERIALIZED (SELECT b FROM dirty_buckets(of_tag, low, high, '1 day') b)
    SELECT m.* FROM rollup_1d m WHERE m.tag_id = of_tag AND m.bucket >= low AND m.bucket < high
        AND m.bucket NOT IN (SELECT b FROM dirty)
    UNION ALL
    SELECT c.* FROM dirty CROSS JOIN LATERAL combine_buckets(
        ARRAY(SELECT m FROM hour_buckets(of_tag, dirty.b, dirty.b + interval '1 day') m), '1 day', hold_seconds(of_tag)) c
$$;

CREATE FUNCTION reading_series(of_tag int, low timestamptz, high timestamptz, width interval)
RETURNS SETOF series_bucket LANGUAGE plpgsql STABLE AS $$
DECLARE
    seconds numeric := extract(epoch FROM width);
    level interval := CASE WHEN seconds % 86400 = 0 THEN '1 day' WHEN seconds % 3600 = 0 THEN '1 hour'
        WHEN seconds % 60 = 0 THEN '1 minute' END;
    inner_low timestamptz := date_bin(coalesce(level, width), low, '2000-01-01Z');
    inner_high timestamptz := date_bin(coalesce(level, width), high, '2000-01-01Z');
    parts series_bucket[];
BEGIN
    IF inner_low < low THEN
        inner_low := inner_low + coalesce(level, width);
    END IF;
    IF level IS NULL OR inner_low >= inner_high THEN
        RETURN QUERY SELECT r.* FROM raw_buckets(of_tag, low, high, width) r;
        RETURN;
    END IF;
    IF level = '1 day' THEN
        parts := ARRAY(SELECT b FROM day_buckets(of_tag, inner_low, inner_high) b);
    ELSIF level = '1 hour' THEN
        parts := ARRAY(SELECT b FROM hour_buckets(of_tag, inner_low, inner_high) b);
    ELSE
        parts := ARRAY(SELECT b FROM minute_buckets(of_tag, inner_low, inner_high) b);
    END IF;
    -- Ends that are no whole bucket of the rollup come from the readings.
    parts := ARRAY(SELECT b FROM raw_buckets(of_tag, low, inner_low, level) b) || parts
        || ARRAY(SELECT b FROM raw_buckets(of_tag, inner_high, high, level) b);
    RETURN QUERY SELECT c.* FROM combine_buckets(parts, width, hold_seconds(of_tag)) c;
END $$;
COMMENT ON FUNCTION reading_series IS
    'a tag from low (inclusive) to high (exclusive) in buckets of one width, exact at this moment, from the widest rollup that serves';

-- === partitions ===

CREATE FUNCTION attach_range(parent text, child text, col text, low timestamptz, high timestamptz) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    stray text := parent || '_default';
BEGIN
    IF to_regclass(format('%I', child)) IS NOT NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
    -- Rows of that time that came before their partition move into it; nobody adds to them meanwhile.
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', stray);
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
        stray, col, low, col, high, child);
    -- Attaching, unlike making a partition in place, lets those who write to other partitions go on.
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, low, high);
    RETURN 1;
END $$;
REVOKE ALL ON FUNCTION attach_range FROM PUBLIC;

CREATE OR REPLACE FUNCTION ensure_partitions(from_day date, to_day date) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    stray_rows_min CONSTANT int := 1000;
    stray_days_max CONSTANT int := 32;
    day date;
    made int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('partitions ' || 'rollup_1m'::regclass::oid, 0));
    FOR day IN SELECT generate_series(date_trunc('month', from_day::timestamp), to_day::timestamp, interval '1 month')::date LOOP
        PERFORM attach_range('rollup_1m', 'rollup_1m_' || to_char(day, 'YYYYMM'), 'bucket',
            day::timestamp AT TIME ZONE 'UTC', (day + interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
    IF (SELECT relkind FROM pg_class WHERE oid = 'reading'::regclass) <> 'p' THEN
        RETURN 0;  -- a hypertable makes its own chunks
    END IF;
    -- The days asked for, and days of which much came late; a few rows of a strange day stay in the default partition.
    FOR day IN
        SELECT generate_series(from_day, to_day, interval '1 day')::date
        UNION
        (SELECT (time AT TIME ZONE 'UTC')::date FROM reading_default GROUP BY 1
         HAVING count(*) >= stray_rows_min ORDER BY count(*) DESC LIMIT stray_days_max)
        ORDER BY 1
    LOOP
        made := made + attach_range('reading', 'reading_' || to_char(day, 'YYYYMMDD'), 'time',
            day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
    RETURN made;
END $$;

-- === retention and compression ===

CREATE FUNCTION drop_before(before timestamptz) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    -- Never beyond what the rollups hold: a reading goes only after it is counted. Never what is a week old or less,
    -- whoever asks: readings are otherwise only added to.
    safe timestamptz := least(before, now() - interval '7 days', (SELECT min(from_time) FROM rollup_dirty));
    day date := (safe AT TIME ZONE 'UTC')::date;
    cut timestamptz := day::timestamp AT TIME ZONE 'UTC';
    child text;
    dropped int := 0;
BEGIN
    INSERT INTO storage_horizon (raw_from) VALUES (cut) ON CONFLICT DO NOTHING;
    DELETE FROM storage_horizon WHERE raw_from < cut;
    IF (SELECT relkind FROM pg_class WHERE oid = 'reading'::regclass) <> 'p' THEN
        SELECT count(*) INTO dropped FROM drop_chunks('reading'::regclass, older_than => cut);
        RETURN dropped;
    END IF;
    FOR child IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'reading'::regclass AND c.relname ~ '^reading_[0-9]{8}$'
            AND to_date(right(c.relname, 8), 'YYYYMMDD') < day ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE %I', child);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM reading_default WHERE time < cut;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION drop_before IS 'drops readings of whole days before a time, as far as their rollups are made; gives how many partitions or chunks went';

CREATE FUNCTION drop_minutes_before(before timestamptz) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    -- Minutes outlive the readings they are made of.
    safe timestamptz := least(before, (SELECT max(raw_from) FROM storage_horizon));
    month date := date_trunc('month', safe AT TIME ZONE 'UTC')::date;
    child text;
    dropped int := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM storage_horizon) THEN
        RETURN 0;
    END IF;
    FOR child IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'rollup_1m'::regclass AND c.relname ~ '^rollup_1m_[0-9]{6}$'
            AND to_date(right(c.relname, 6), 'YYYYMM') < month ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE %I', child);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM rollup_1m_default WHERE bucket < month::timestamp AT TIME ZONE 'UTC';
    RETURN dropped;
END $$;
COMMENT ON FUNCTION drop_minutes_before IS 'drops minute rollups of whole months before a time; hours and days are kept';

CREATE FUNCTION compress_before(before timestamptz, chunks_max int) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    chunk regclass;
    done int := 0;
BEGIN
    IF storage_form() <> 'timescaledb-community' THEN
        RETURN 0;
    END IF;
    -- Status bit 8: rows came after it was compressed.
    FOR chunk IN
        SELECT c FROM show_chunks('reading'::regclass, older_than => before) c
        CROSS JOIN LATERAL _timescaledb_functions.chunk_status(c) status
        WHERE status & 1 = 0 OR status & 8 = 8 LIMIT chunks_max
    LOOP
        PERFORM compress_chunk(chunk, true);
        done := done + 1;
    END LOOP;
    RETURN done;
END $$;
COMMENT ON FUNCTION compress_before IS 'compresses chunks that end before a time, also again when late rows came; 0 where the form cannot';

-- === what there is ===

CREATE FUNCTION relation_bytes(name text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)::bigint FROM pg_partition_tree(to_regclass(format('%I', name))) t
$$;

CREATE FUNCTION storage_report(at timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    form text := storage_form();
    today date := (at AT TIME ZONE 'UTC')::date;
    ahead int := 0;
    stray bigint := 0;
    bytes bigint;
    rows_about bigint;
    uncompressed int := 0;
BEGIN
    IF form = 'plain' THEN
        WHILE to_regclass(format('%I', 'reading_' || to_char(today + ahead + 1, 'YYYYMMDD'))) IS NOT NULL LOOP
            ahead := ahead + 1;
        END LOOP;
        stray := (SELECT count(*) FROM reading_default);
        bytes := relation_bytes('reading');
        rows_about := (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_partition_tree('reading'::regclass) t
            JOIN pg_class c ON c.oid = t.relid WHERE t.isleaf);
    ELSE
        bytes := hypertable_size('reading'::regclass);
        rows_about := approximate_row_count('reading'::regclass);
        uncompressed := (SELECT count(*) FROM timescaledb_information.chunks
            WHERE hypertable_schema = current_schema() AND hypertable_name = 'reading' AND NOT is_compressed
                AND range_end <= at - interval '2 days');
    END IF;
    RETURN jsonb_build_object(
        'form', form,
        'partitions_ahead_days', CASE WHEN form = 'plain' THEN ahead END,
        'stray_readings', stray,
        'uncompressed_chunks', CASE WHEN form = 'timescaledb-community' THEN uncompressed END,
        'reading_bytes', bytes,
        'readings_about', rows_about,
        'rollup_bytes', relation_bytes('rollup_1m') + pg_total_relation_size('rollup_1h') + pg_total_relation_size('rollup_1d'),
        'rollup_marks', (SELECT count(*) FROM rollup_dirty WHERE to_time <= at),
        'rollup_lag_s', (SELECT round(extract(epoch FROM at - min(greatest(to_time, marked_at))))::bigint FROM rollup_dirty
            WHERE to_time <= at AND tag_ids IS NOT NULL),
        'rollup_hours_to_make', (SELECT count(*) FROM rollup_dirty WHERE to_time <= at AND tag_ids IS NULL),
        'raw_from', (SELECT max(raw_from) FROM storage_horizon));
END $$;
COMMENT ON FUNCTION storage_report IS 'what `foodflow-hub doctor` says of a tenant''s storage';

-- === a clock that is set right moves readings: both places are made anew ===

CREATE OR REPLACE FUNCTION correct_clock(edge uuid, of_boot uuid, of_lane smallint, of_seq bigint, by_us bigint,
    tags int[], times timestamptz[], vals float8[], quals smallint[],
    ccps text[], check_froms timestamptz[], missed_tags int[], missed_froms timestamptz[])
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    d interval := by_us * interval '1 microsecond';
    moved bigint;
BEGIN
    INSERT INTO rollup_dirty (tag_ids, from_time, to_time)
    SELECT array_agg(DISTINCT n.tag_id), date_bin('1 minute', min(n.at), '2000-01-01Z'),
        date_bin('1 minute', max(n.at), '2000-01-01Z') + interval '1 minute'
    FROM (SELECT u.tag_id, u.at FROM unnest(tags, times) AS u (tag_id, at)
        UNION ALL SELECT u.tag_id, u.at + d FROM unnest(tags, times) AS u (tag_id, at)) n
    GROUP BY date_bin('1 hour', n.at, '2000-01-01Z');
    DELETE FROM reading r USING unnest(tags, times, vals, quals) AS n (tag_id, time, value, quality)
    WHERE r.tag_id = n.tag_id AND r.time = n.time AND r.value IS NOT DISTINCT FROM n.value AND r.quality = n.quality
        AND EXISTS (SELECT FROM tag t WHERE t.id = n.tag_id AND t.edge_id = edge);
    INSERT INTO reading (time, tag_id, value, quality)
    SELECT n.time + d, n.tag_id, n.value, n.quality
    FROM unnest(tags, times, vals, quals) AS n (tag_id, time, value, quality)
    JOIN tag t ON t.id = n.tag_id AND t.edge_id = edge;
    GET DIAGNOSTICS moved = ROW_COUNT;
    -- A time that was ahead would otherwise stay the newest for ever.
    INSERT INTO tag_last AS l (tag_id, time, value, quality, received_at)
    SELECT u.tag_id, x.time, x.value, x.quality, now() FROM (SELECT DISTINCT unnest(tags) AS tag_id ORDER BY 1) u
    CROSS JOIN LATERAL (SELECT r.time, r.value, r.quality FROM reading r WHERE r.tag_id = u.tag_id
        ORDER BY r.time DESC LIMIT 1) x
    ON CONFLICT (tag_id) DO UPDATE SET time = excluded.time, value = excluded.value, quality = excluded.quality,
        received_at = excluded.received_at
    WHERE (l.time, l.value, l.quality) IS DISTINCT FROM (excluded.time, excluded.value, excluded.quality);
    UPDATE ccp_check k SET from_time = k.from_time + d, to_time = k.to_time + d
    FROM unnest(ccps, check_froms) AS n (code, from_time) JOIN ccp c ON c.code = n.code
    WHERE k.edge_id = edge AND k.ccp_id = c.id AND k.from_time = n.from_time
        AND NOT EXISTS (SELECT FROM ccp_check o WHERE o.ccp_id = c.id AND o.edge_id = edge
            AND o.from_time = n.from_time + d);
    UPDATE not_read m SET from_time = m.from_time + d, to_time = m.to_time + d
    FROM unnest(missed_tags, missed_froms) AS n (tag_id, from_time)
    WHERE m.frame_edge_id = edge AND m.tag_id = n.tag_id AND m.from_time = n.from_time;
    UPDATE alarm_change a SET at = a.at + d
    WHERE a.edge_id = edge AND a.boot = of_boot AND a.lane = of_lane AND a.seq = of_seq;
    UPDATE manual_entry m SET entered_at = m.entered_at + d, measured_at = m.measured_at + d
    WHERE m.edge_id = edge AND m.boot = of_boot AND m.lane = of_lane AND m.seq = of_seq;
    RETURN moved;
END $$;

-- === what is there already ===

SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 7);

SELECT mark_rollups(min(ends.low), max(ends.high) + interval '1 microsecond') FROM (
    SELECT (SELECT r.time FROM reading r WHERE r.tag_id = t.id ORDER BY r.time LIMIT 1) AS low,
        (SELECT r.time FROM reading r WHERE r.tag_id = t.id ORDER BY r.time DESC LIMIT 1) AS high
    FROM tag t) ends HAVING min(ends.low) IS NOT NULL;

-- Compression is the hub's duty, tenant by tenant, instead of a background worker for each tenant.
DO $$
BEGIN
    IF storage_form() = 'timescaledb-community' THEN
        PERFORM remove_compression_policy('reading'::regclass, if_exists => true);
    END IF;
END $$;
