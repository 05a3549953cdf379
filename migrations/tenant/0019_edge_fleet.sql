-- Edges are commanded, configured and certified from here; what people do at an edge, and what its clock did, is kept.

CREATE TABLE edge_command (
    id          uuid PRIMARY KEY,
    number      bigint GENERATED ALWAYS AS IDENTITY,
    edge_id     uuid NOT NULL REFERENCES edge,
    kind        text NOT NULL CHECK (kind IN ('configure', 'set_limits', 'alarm', 'replay', 'update', 'certificate')),
    summary     jsonb NOT NULL,
    payload     bytea NOT NULL CHECK (octet_length(payload) <= 1048576),
    issued_by   text NOT NULL,
    issued_at   timestamptz NOT NULL,
    expires_at  timestamptz,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'done', 'already_so', 'refused',
        'rolled_back', 'expired', 'superseded')),
    reason      text,
    attempts    int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    sent_at     timestamptz,
    answered_at timestamptz
);
COMMENT ON TABLE edge_command IS 'sent again and again, in order of number, until the edge''s answer is stored or it is too old';
COMMENT ON COLUMN edge_command.summary IS 'what it asks for, without secrets, for people';
COMMENT ON COLUMN edge_command.payload IS 'the sealed envelope as it is published: the same bytes at every repetition';
COMMENT ON COLUMN edge_command.state IS 'an answer that comes after all takes the place of `expired` or `superseded`';
COMMENT ON COLUMN edge_command.attempts IS 'how often it was published';
CREATE INDEX edge_command_open ON edge_command (number) WHERE state IN ('waiting', 'sent');
CREATE INDEX edge_command_edge ON edge_command (edge_id, id);

CREATE TABLE edge_config (
    edge_id    uuid NOT NULL REFERENCES edge,
    revision   bigint NOT NULL CHECK (revision > 0),
    toml       text NOT NULL,
    sha256     text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    command_id uuid NOT NULL REFERENCES edge_command,
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'applied', 'refused', 'rolled_back',
        'superseded')),
    reason     text,
    PRIMARY KEY (edge_id, revision),
    CONSTRAINT "a configuration has at most 1 MiB" CHECK (octet_length(toml) <= 1048576)
);
COMMENT ON TABLE edge_config IS 'every configuration that was ever sent to an edge; toml may hold passwords of the plant''s own devices';
COMMENT ON COLUMN edge_config.state IS 'what the edge made of it; superseded: a later revision was sent before it answered';
CREATE INDEX edge_config_command ON edge_config (command_id);

-- How often the limits of an edge's control points were changed from here.
ALTER TABLE edge ADD COLUMN limits_revision bigint NOT NULL DEFAULT 0;

CREATE TABLE ccp_limit (
    ccp_id         uuid NOT NULL REFERENCES ccp,
    version        int NOT NULL CHECK (version > 0),
    low            float8,
    high           float8,
    clear_margin   float8 NOT NULL,
    delay_us       bigint NOT NULL,
    gap_us_max     bigint NOT NULL,
    check_every_us bigint NOT NULL,
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL,
    edge_id        uuid REFERENCES edge,
    revision       bigint,
    command_id     uuid REFERENCES edge_command,
    PRIMARY KEY (ccp_id, version)
);
COMMENT ON TABLE ccp_limit IS 'versions of critical limits that were set here; never changed';
COMMENT ON COLUMN ccp_limit.edge_id IS 'the edge that monitors the point; null when none published its tag yet';
COMMENT ON COLUMN ccp_limit.revision IS 'the edge''s count of changes of limits';

-- The state of an alarm by ISA-18.2, as its edge last told it.
ALTER TABLE alarm ADD COLUMN state text CHECK (state IN ('normal', 'unacknowledged', 'acknowledged',
    'returned_unacknowledged', 'latched', 'shelved', 'suppressed', 'out_of_service'));
ALTER TABLE alarm ADD COLUMN state_at timestamptz;
ALTER TABLE alarm ADD COLUMN state_boot uuid;
ALTER TABLE alarm ADD COLUMN state_seq bigint;
ALTER TABLE alarm ADD COLUMN is_active boolean;
ALTER TABLE alarm ADD COLUMN priority smallint;
COMMENT ON COLUMN alarm.state IS 'null: an edge that keeps no states';
COMMENT ON COLUMN alarm.state_seq IS 'frame that told it: within a boot an older frame changes nothing; clocks do not order';
COMMENT ON COLUMN alarm.priority IS '1 most urgent to 3; 4 is diagnostic';

CREATE TABLE alarm_change (
    edge_id       uuid NOT NULL REFERENCES edge,
    boot          uuid NOT NULL,
    lane          smallint NOT NULL,
    seq           bigint NOT NULL,
    place         int NOT NULL,
    alarm_id      uuid NOT NULL,
    line_id       uuid REFERENCES line,
    code          text NOT NULL,
    subject       text NOT NULL,
    at            timestamptz NOT NULL,
    from_state    text NOT NULL,
    to_state      text NOT NULL,
    cause         jsonb NOT NULL,
    actor         text,
    is_active     boolean NOT NULL,
    priority      smallint NOT NULL,
    value         float8,
    limit_version int,
    PRIMARY KEY (edge_id, boot, lane, seq, place)
);
COMMENT ON TABLE alarm_change IS 'the journal of alarm states: every change, and every action that was refused; never changed but for its clock';
COMMENT ON COLUMN alarm_change.seq IS 'frame and place in it: the order of things, whatever the clock said';
COMMENT ON COLUMN alarm_change.actor IS 'who, where a person acted';
CREATE INDEX alarm_change_alarm ON alarm_change (alarm_id, at);
CREATE INDEX alarm_change_at ON alarm_change (at);

CREATE TABLE manual_entry (
    id          uuid PRIMARY KEY,
    edge_id     uuid NOT NULL REFERENCES edge,
    boot        uuid NOT NULL,
    lane        smallint NOT NULL,
    seq         bigint NOT NULL,
    tag_id      int REFERENCES tag,
    line_id     uuid REFERENCES line,
    tag_name    text NOT NULL,
    entered_at  timestamptz NOT NULL,
    measured_at timestamptz NOT NULL,
    value       float8 NOT NULL,
    badge       text NOT NULL,
    name        text NOT NULL,
    meaning     text NOT NULL,
    note        text NOT NULL,
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT "a note has at most 10000 characters" CHECK (length(note) <= 10000),
    CONSTRAINT "a badge and a name have at most 200 characters" CHECK (length(badge) <= 200 AND length(name) <= 200)
);
COMMENT ON TABLE manual_entry IS 'values that people measured and entered on a line PC; never changed but for its clock';
COMMENT ON COLUMN manual_entry.tag_id IS 'null when no tag of that name was known';
COMMENT ON COLUMN manual_entry.sha256 IS 'over the entry''s canonical text, by the line PC: binds the signature to what was entered';
CREATE INDEX manual_entry_tag ON manual_entry (tag_id, measured_at);

CREATE TABLE clock_step (
    edge_id       uuid NOT NULL REFERENCES edge,
    boot          uuid NOT NULL,
    lane          smallint NOT NULL,
    seq           bigint NOT NULL,
    place         int NOT NULL,
    at            timestamptz NOT NULL,
    by_us         bigint NOT NULL,
    is_synced     boolean NOT NULL,
    correction_us bigint NOT NULL,
    PRIMARY KEY (edge_id, boot, lane, seq, place)
);
COMMENT ON TABLE clock_step IS 'an edge''s clock was set; at is by the clock after it';
COMMENT ON COLUMN clock_step.correction_us IS 'added to the times of frames of that boot that were sealed unsynchronised before it';
CREATE INDEX clock_step_correction ON clock_step (edge_id, boot) WHERE correction_us <> 0;

CREATE TABLE unsynced_frame (
    edge_id     uuid NOT NULL REFERENCES edge,
    boot        uuid NOT NULL,
    lane        smallint NOT NULL,
    seq         bigint NOT NULL,
    sealed_at   timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    misdated    int NOT NULL DEFAULT 0,
    payload     bytea NOT NULL,
    PRIMARY KEY (edge_id, boot, lane, seq)
);
COMMENT ON TABLE unsynced_frame IS 'frames sealed while the edge''s clock was not synchronised, as they came: when a later clock_step says what the times truly were, exactly their rows are moved and the frame leaves this table. Forgotten after seven days';
COMMENT ON COLUMN unsynced_frame.misdated IS 'readings that were not stored because their time is impossible; they wait here';
CREATE INDEX unsynced_frame_received ON unsynced_frame (received_at);

CREATE TABLE edge_certificate (
    id          uuid PRIMARY KEY,
    edge_id     uuid NOT NULL REFERENCES edge,
    serial      text NOT NULL UNIQUE,
    fingerprint text NOT NULL,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL,
    issued_at   timestamptz NOT NULL,
    revoked_at  timestamptz
);
COMMENT ON TABLE edge_certificate IS 'client certificates signed by the hub''s device authority; who gets in is decided by platform.edge_registry';
COMMENT ON COLUMN edge_certificate.fingerprint IS 'SHA-256 of the certificate (DER), lower-case hexadecimal';
CREATE INDEX edge_certificate_edge ON edge_certificate (edge_id, not_after);

CREATE TABLE edge_artefact (
    sha256      text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes       bigint NOT NULL CHECK (bytes > 0),
    uploaded_by text NOT NULL,
    uploaded_at timestamptz NOT NULL
);
COMMENT ON TABLE edge_artefact IS 'programs that edges may fetch; the content is a file of the hub''s data_dir: artefacts/<tenant>/<sha256>';

-- Four more ways to lose control.
ALTER TABLE deviation DROP CONSTRAINT deviation_kind_check;
ALTER TABLE deviation ADD CONSTRAINT deviation_kind_check CHECK (kind IN ('limit', 'monitoring_gap', 'sensor_stuck',
    'hold_time', 'cooling', 'challenge', 'missed_check'));

-- What is about an edge as a whole is seen and done by who holds the permission everywhere; what is about a line's
-- alarms, tags and control points goes with them.
DO $$
DECLARE
    tbl text;
    owns text;
BEGIN
    FOREACH tbl IN ARRAY ARRAY['edge_command', 'edge_config', 'clock_step', 'unsynced_frame', 'edge_certificate',
        'edge_artefact'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tbl);
        EXECUTE format('CREATE POLICY everywhere ON %I USING ((SELECT is_everywhere()))', tbl);
    END LOOP;
    owns := '(SELECT is_everywhere()) OR coalesce(line_id = ANY ((SELECT my_lines())::uuid[]), false)';
    FOREACH tbl IN ARRAY ARRAY['alarm_change', 'manual_entry'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tbl);
        EXECUTE format('CREATE POLICY by_line ON %I USING (line_id IS NULL OR %s) WITH CHECK (%s)', tbl, owns, owns);
        EXECUTE format('CREATE POLICY delete_by_line ON %I AS RESTRICTIVE FOR DELETE USING (%s)', tbl, owns);
    END LOOP;
    owns := '(SELECT is_everywhere()) OR EXISTS (SELECT FROM ccp x WHERE x.id = ccp_id)';
    ALTER TABLE ccp_limit ENABLE ROW LEVEL SECURITY;
    EXECUTE format('CREATE POLICY by_line ON ccp_limit USING (%s) WITH CHECK (%s)', owns, owns);
END $$;

-- The one way in which readings and checks are ever moved: those of one frame that was sealed by a clock that is
-- known to have been wrong, by what it was wrong. Runs as the owner: a tenant's role may only add to them.
CREATE FUNCTION correct_clock(edge uuid, of_boot uuid, of_lane smallint, of_seq bigint, by_us bigint,
    tags int[], times timestamptz[], vals float8[], quals smallint[],
    ccps text[], check_froms timestamptz[], missed_tags int[], missed_froms timestamptz[])
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    d interval := by_us * interval '1 microsecond';
    moved bigint;
BEGIN
    DELETE FROM reading r USING unnest(tags, times, vals, quals) AS n (tag_id, time, value, quality)
    WHERE r.tag_id = n.tag_id AND r.time = n.time AND r.value IS NOT DISTINCT FROM n.value AND r.quality = n.quality
        AND EXISTS (SELECT FROM tag t WHERE t.id = n.tag_id AND t.edge_id = edge);
    INSERT INTO reading (time, tag_id, value, quality)
    SELECT n.time + d, n.tag_id, n.value, n.quality
    FROM unnest(tags, times, vals, quals) AS n (tag_id, time, value, quality)
    JOIN tag t ON t.id = n.tag_id AND t.edge_id = edge;
    GET DIAGNOSTICS moved = ROW_COUNT;
    -- A time that was ahead would otherwise stay the newest for ever.
    INSERT INTO tag_last AS l (tag_id, time, value, quality)
    SELECT u.tag_id, x.time, x.value, x.quality FROM (SELECT DISTINCT unnest(tags) AS tag_id ORDER BY 1) u
    CROSS JOIN LATERAL (SELECT r.time, r.value, r.quality FROM reading r WHERE r.tag_id = u.tag_id
        ORDER BY r.time DESC LIMIT 1) x
    ON CONFLICT (tag_id) DO UPDATE SET time = excluded.time, value = excluded.value, quality = excluded.quality;
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
