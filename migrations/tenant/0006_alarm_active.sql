-- Alarms that stand now are asked for by every page: what they are about finds them.

CREATE INDEX alarm_active ON alarm (code, subject) WHERE cleared_at IS NULL;
COMMENT ON TABLE alarm IS 'written by edges; one row an occurrence, standing while cleared_at is null';
