-- Readings that their sources corrected: every version that came, and which one holds.

CREATE TABLE reading_version (
    tag_id      int NOT NULL REFERENCES tag,
    time        timestamptz NOT NULL,
    number      int NOT NULL CHECK (number > 0),
    rev         bigint,
    value       float8,
    quality     int2 NOT NULL,
    edge_id     uuid REFERENCES edge,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tag_id, time, number)
);
COMMENT ON TABLE reading_version IS
    'every version of a reading whose source numbered or changed it; a reading that is not here came once. Of the versions the one with the highest rev holds, of those without one the last';
COMMENT ON COLUMN reading_version.number IS 'in the order in which they came, from 1';
COMMENT ON COLUMN reading_version.rev IS 'as the source numbers it; null where it does not';
COMMENT ON COLUMN reading_version.edge_id IS 'the client that sent it';
COMMENT ON COLUMN reading_version.recorded_at IS 'when the hub noted it; of the first version, when the second came';
CREATE INDEX reading_version_recorded_at ON reading_version (recorded_at);

-- The only way in which a reading changes: with the version before kept beside it.
CREATE FUNCTION revise_reading(
    of_tag int, at timestamptz, new_value float8, new_quality int2, new_rev bigint, by_edge uuid
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    held reading_version;
    is_newest boolean := false;
BEGIN
    INSERT INTO reading_version (tag_id, time, number, value, quality, edge_id)
    SELECT r.tag_id, r.time, 1, r.value, r.quality, by_edge FROM reading r
    WHERE r.tag_id = of_tag AND r.time = at
        AND NOT EXISTS (SELECT FROM reading_version v WHERE v.tag_id = of_tag AND v.time = at) LIMIT 1;
    INSERT INTO reading_version (tag_id, time, number, rev, value, quality, edge_id)
    SELECT of_tag, at, max(v.number) + 1, new_rev, new_value, new_quality, by_edge
    FROM reading_version v WHERE v.tag_id = of_tag AND v.time = at HAVING max(v.number) IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'tag % has no reading of % to revise', of_tag, at;
    END IF;
    SELECT * INTO held FROM reading_version v WHERE v.tag_id = of_tag AND v.time = at
    ORDER BY v.rev DESC NULLS LAST, v.number DESC LIMIT 1;
    UPDATE reading r SET value = held.value, quality = held.quality
    WHERE r.tag_id = of_tag AND r.time = at AND (r.value, r.quality) IS DISTINCT FROM (held.value, held.quality);
    IF FOUND THEN
        UPDATE tag_last l SET value = held.value, quality = held.quality, received_at = now()
        WHERE l.tag_id = of_tag AND l.time = at;
        is_newest := FOUND;
        INSERT INTO rollup_dirty (tag_ids, from_time, to_time)
        VALUES (ARRAY[of_tag], date_trunc('minute', at), date_trunc('minute', at) + interval '1 minute');
        PERFORM note_alarm_due(ARRAY[of_tag], ARRAY[at]);
    END IF;
    RETURN is_newest;
END $$;
COMMENT ON FUNCTION revise_reading IS
    'notes another version of a reading and has the one that holds take effect: newest value, rollups, alarm rules; true when the tag''s newest value changed';

-- Versions are held, too, until their tag is adopted.
ALTER TABLE pending_reading ADD COLUMN number int NOT NULL DEFAULT 1 CHECK (number > 0);
ALTER TABLE pending_reading ADD COLUMN rev bigint;
ALTER TABLE pending_reading DROP CONSTRAINT pending_reading_pkey, ADD PRIMARY KEY (pending_id, time, number);
COMMENT ON COLUMN pending_reading.number IS 'versions of one time in the order in which they came, from 1';
