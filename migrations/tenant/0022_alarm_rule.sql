-- Rules by which the hub judges readings, in the time of the readings, and what they found.

CREATE TABLE alarm_rule (
    id              uuid PRIMARY KEY,
    version         int NOT NULL DEFAULT 1,
    code            text NOT NULL UNIQUE,
    name            text NOT NULL,
    tag_name        text NOT NULL,
    line_id         uuid REFERENCES line,
    kind            text NOT NULL,
    low             float8,
    high            float8,
    deadband        float8 NOT NULL DEFAULT 0,
    on_delay_s      int NOT NULL DEFAULT 0,
    off_delay_s     int NOT NULL DEFAULT 0,
    window_s        int NOT NULL DEFAULT 60,
    score_max       float8 NOT NULL DEFAULT 6,
    season          text NOT NULL DEFAULT 'none',
    is_running_only boolean NOT NULL DEFAULT false,
    tag_names       text[] NOT NULL DEFAULT '{}',
    priority        smallint NOT NULL DEFAULT 3,
    is_latching     boolean NOT NULL DEFAULT false,
    realarm_s       int NOT NULL DEFAULT 0,
    shelve_s_max    int NOT NULL DEFAULT 28800,
    response        text,
    is_enabled      boolean NOT NULL,
    CONSTRAINT "a code has 1 to 40 characters" CHECK (length(code) BETWEEN 1 AND 40),
    CONSTRAINT "a name has 1 to 200 characters" CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT "a tag's name has 1 to 200 characters" CHECK (length(tag_name) BETWEEN 1 AND 200),
    CONSTRAINT "a response has at most 2000 characters" CHECK (length(response) <= 2000),
    CONSTRAINT "a kind is one of those that are documented" CHECK (kind IN ('no_data',
        'threshold', 'rate', 'zscore', 'mad', 'cusum', 'ewma', 'isolation_forest')),
    CONSTRAINT "a threshold or a rate needs a low or a high limit" CHECK (kind NOT IN ('threshold', 'rate')
        OR low IS NOT NULL OR high IS NOT NULL),
    CONSTRAINT "a low limit is not above a high one" CHECK (low <= high),
    CONSTRAINT "a deadband is 0 or more" CHECK (deadband >= 0 AND deadband < 'infinity'),
    CONSTRAINT "a delay is 0 to 86400 seconds" CHECK (on_delay_s BETWEEN 0 AND 86400 AND off_delay_s BETWEEN 0 AND 86400),
    CONSTRAINT "a window is 1 to 86400 seconds" CHECK (window_s BETWEEN 1 AND 86400),
    CONSTRAINT "a score is more than 0" CHECK (score_max > 0 AND score_max < 'infinity'),
    CONSTRAINT "a season is none or hour_of_week" CHECK (season IN ('none', 'hour_of_week')),
    CONSTRAINT "a priority is 1 to 4" CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT "an alarm asks again after 0 to 604800 seconds" CHECK (realarm_s BETWEEN 0 AND 604800),
    CONSTRAINT "a shelving lasts 1 to 28800 seconds" CHECK (shelve_s_max BETWEEN 1 AND 28800),
    CONSTRAINT "an asset has at most 16 further tags" CHECK (cardinality(tag_names) <= 16),
    CONSTRAINT "a rule for a running line and its line are given together" CHECK (NOT is_running_only OR line_id IS NOT NULL)
);
COMMENT ON TABLE alarm_rule IS 'what the hub watches; critical limits are not among it: their verdicts come from the edge and are judged again with its code';
COMMENT ON COLUMN alarm_rule.tag_name IS 'the tag it judges; one that nobody publishes yet is waited for';
COMMENT ON COLUMN alarm_rule.low IS 'of the value, or of its change per minute for a rate';
COMMENT ON COLUMN alarm_rule.window_s IS 'no_data: longest silence; rate: over which the change is taken; else the block whose mean is judged';
COMMENT ON COLUMN alarm_rule.score_max IS 'zscore, mad, cusum and ewma: in standard deviations; isolation_forest: 0 to 1';
COMMENT ON COLUMN alarm_rule.is_running_only IS 'judged only while the line''s rate tag is above 0';
COMMENT ON COLUMN alarm_rule.tag_names IS 'further tags of the asset, for isolation_forest';
COMMENT ON COLUMN alarm_rule.response IS 'what to do, for who sees the alarm';
CREATE INDEX alarm_rule_name ON alarm_rule (name, id);
CREATE INDEX alarm_rule_by_tag ON alarm_rule (tag_name) WHERE is_enabled;

CREATE TABLE alarm_rule_version (
    rule_id uuid NOT NULL,
    version int NOT NULL,
    from_at timestamptz NOT NULL,
    rule    jsonb,
    PRIMARY KEY (rule_id, version)
);
COMMENT ON TABLE alarm_rule_version IS 'a rule as it was and since when, so that every verdict can be replayed: readings are judged by the version that was in force at their time';
COMMENT ON COLUMN alarm_rule_version.rule IS 'null: deleted';

CREATE TABLE alarm_model (
    rule_id      uuid NOT NULL,
    version      int NOT NULL,
    valid_from   timestamptz NOT NULL,
    trained_from timestamptz NOT NULL,
    trained_to   timestamptz NOT NULL,
    n            bigint NOT NULL,
    about        jsonb NOT NULL,
    model        bytea NOT NULL CHECK (octet_length(model) <= 4194304),
    sha256       text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    trained_by   text NOT NULL,
    trained_at   timestamptz NOT NULL,
    PRIMARY KEY (rule_id, version)
);
COMMENT ON TABLE alarm_model IS 'what a statistical rule takes for normal; never changed: training again adds a version, which judges from valid_from on';

CREATE TABLE alarm_due (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id uuid NOT NULL,
    from_at timestamptz NOT NULL
);
CREATE INDEX alarm_due_rule ON alarm_due (rule_id);
COMMENT ON TABLE alarm_due IS 'readings of a rule''s tags arrived, the earliest at from_at: written with them in one transaction, removed with the verdict. Rows are only added and removed, so that ingest waits for nobody';

CREATE TABLE alarm_state (
    rule_id uuid NOT NULL,
    at      timestamptz NOT NULL,
    span    smallint NOT NULL CHECK (span BETWEEN 0 AND 3),
    state   bytea NOT NULL,
    PRIMARY KEY (rule_id, at)
);
COMMENT ON COLUMN alarm_state.span IS '0 the newest, kept until the next; 1 of a minute, 2 of an hour, 3 of a day: the more, the longer it is kept';
COMMENT ON TABLE alarm_state IS 'where the judging of a rule stood once it had taken in everything up to at: late readings are judged from the last one before them';

CREATE TABLE alarm_action (
    id       uuid PRIMARY KEY,
    rule_id  uuid NOT NULL,
    alarm_id uuid NOT NULL,
    at       timestamptz NOT NULL,
    verb     text NOT NULL CHECK (verb IN ('acknowledge', 'shelve', 'unshelve', 'reset', 'take_out_of_service',
        'return_to_service')),
    until_at timestamptz,
    actor    text NOT NULL,
    reason   text NOT NULL
);
CREATE INDEX alarm_action_rule ON alarm_action (rule_id, at);
COMMENT ON TABLE alarm_action IS 'what people did about alarms of the hub; never changed: states follow from it and from the readings';

CREATE TABLE alarm_entry (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id    uuid NOT NULL,
    alarm_id   uuid NOT NULL,
    line_id    uuid REFERENCES line,
    code       text NOT NULL,
    subject    text NOT NULL,
    at         timestamptz NOT NULL,
    found_at   timestamptz NOT NULL,
    from_state text,
    to_state   text NOT NULL,
    cause      text NOT NULL CHECK (cause IN ('raised', 'returned', 'corrected', 'withdrawn', 'time', 'action')),
    actor      text,
    reason     text,
    priority   smallint NOT NULL,
    value      float8
);
CREATE INDEX alarm_entry_alarm ON alarm_entry (alarm_id, id);
CREATE INDEX alarm_entry_at ON alarm_entry (at);
COMMENT ON TABLE alarm_entry IS 'the journal of the hub''s alarms: what was believed when; never changed. What late readings disprove is withdrawn by a further entry';

-- Alarms of edges and of the hub are one list.
ALTER TABLE alarm ALTER COLUMN edge_id DROP NOT NULL;
ALTER TABLE alarm ADD COLUMN version int NOT NULL DEFAULT 1;
ALTER TABLE alarm ADD COLUMN rule_id uuid;
ALTER TABLE alarm ADD COLUMN rule_version int;
ALTER TABLE alarm ADD COLUMN model_version int;
ALTER TABLE alarm ADD COLUMN value float8;
ALTER TABLE alarm ADD COLUMN score float8;
ALTER TABLE alarm ADD COLUMN found_at timestamptz;
ALTER TABLE alarm ADD COLUMN withdrawn_at timestamptz;
ALTER TABLE alarm ADD COLUMN shelved_until timestamptz;
ALTER TABLE alarm ADD COLUMN acked_at timestamptz;
ALTER TABLE alarm ADD COLUMN acked_by text;
ALTER TABLE alarm ADD CONSTRAINT "an alarm comes from an edge or from a rule" CHECK (edge_id IS NOT NULL OR rule_id IS NOT NULL);
COMMENT ON COLUMN alarm.rule_id IS 'the hub''s rule that raised it; null for alarms of edges';
COMMENT ON COLUMN alarm.value IS 'the value, or for a rate its change per minute, at which it was raised';
COMMENT ON COLUMN alarm.found_at IS 'when the hub raised it; raised_at is by the time of the readings';
COMMENT ON COLUMN alarm.withdrawn_at IS 'when readings that came late showed that it never was';
CREATE INDEX alarm_rule_id ON alarm (rule_id, raised_at) WHERE rule_id IS NOT NULL;
CREATE INDEX alarm_raised ON alarm (raised_at DESC, id);

-- Which tags a rule listens to.
CREATE VIEW alarm_rule_tag WITH (security_invoker = true) AS
    SELECT id AS rule_id, tag_name FROM alarm_rule WHERE is_enabled
    UNION SELECT r.id, unnest(r.tag_names) FROM alarm_rule r WHERE r.is_enabled
    UNION SELECT r.id, l.rate_tag FROM alarm_rule r JOIN line l ON l.id = r.line_id
        WHERE r.is_enabled AND r.is_running_only AND l.rate_tag IS NOT NULL;

CREATE FUNCTION note_alarm_due(tags int[], times timestamptz[]) RETURNS void LANGUAGE sql
SET search_path FROM CURRENT AS $$
    INSERT INTO alarm_due (rule_id, from_at)
    SELECT v.rule_id, min(n.time) FROM unnest(tags, times) AS n (tag_id, time)
    JOIN tag t ON t.id = n.tag_id JOIN alarm_rule_tag v ON v.tag_name = t.name GROUP BY v.rule_id
$$;
COMMENT ON FUNCTION note_alarm_due IS 'called in the transaction that stores or moves readings, with the earliest time of each tag';

DO $$
DECLARE
    tbl text;
    owns text := '(SELECT is_everywhere()) OR coalesce(line_id = ANY ((SELECT my_lines())::uuid[]), false)';
BEGIN
    FOREACH tbl IN ARRAY ARRAY['alarm_rule', 'alarm_entry'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tbl);
        EXECUTE format('CREATE POLICY by_line ON %I USING (line_id IS NULL OR %s) WITH CHECK (%s)', tbl, owns, owns);
        EXECUTE format('CREATE POLICY delete_by_line ON %I AS RESTRICTIVE FOR DELETE USING (%s)', tbl, owns);
    END LOOP;
END $$;
