-- What several hubs on one database tell each other, and which of them sends a command.

-- A message leaves with the commit of the change that it tells of, or not at all. It says who wrote (the hub's name is its
-- connections' application_name), in which schema, and what; whoever hears it reads the rest.
CREATE FUNCTION tell_hubs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('foodflow_live',
        concat_ws(' ', current_setting('application_name'), TG_TABLE_SCHEMA, TG_TABLE_NAME, NEW.id));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION tell_hubs IS 'tells the other hubs of a row, so that their live pages hear of it too';

CREATE FUNCTION tell_hubs_of_edge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('foodflow_live', concat_ws(' ', current_setting('application_name'), TG_TABLE_SCHEMA, 'edge', NEW.edge_id));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION tell_hubs_of_edge IS 'the hub that an edge is connected to hears at once that there is something for it';

CREATE TRIGGER tell_hubs AFTER INSERT OR UPDATE ON alarm FOR EACH ROW EXECUTE FUNCTION tell_hubs();
CREATE TRIGGER tell_hubs AFTER INSERT OR UPDATE ON deviation FOR EACH ROW EXECUTE FUNCTION tell_hubs();
CREATE TRIGGER tell_hubs AFTER INSERT OR UPDATE ON hold FOR EACH ROW EXECUTE FUNCTION tell_hubs();
CREATE TRIGGER tell_hubs AFTER INSERT OR UPDATE ON batch FOR EACH ROW EXECUTE FUNCTION tell_hubs();
CREATE TRIGGER tell_hubs AFTER INSERT ON vision_result FOR EACH ROW WHEN (NEW.verdict <> 'pass')
    EXECUTE FUNCTION tell_hubs();
CREATE TRIGGER tell_hubs AFTER UPDATE ON edge FOR EACH ROW WHEN (OLD.is_online IS DISTINCT FROM NEW.is_online)
    EXECUTE FUNCTION tell_hubs();
CREATE TRIGGER tell_hubs AFTER INSERT ON edge_command FOR EACH ROW EXECUTE FUNCTION tell_hubs_of_edge();

-- Of several hubs one sends: it notes here that it does, before it does.
ALTER TABLE edge_command ADD COLUMN sent_in text;
COMMENT ON COLUMN edge_command.sent_in IS
    'hub and session in which it was sent last; the same for every hub where the edge is on a broker that they share';

-- Alarms of rules that stand are asked for at every turn.
CREATE INDEX alarm_rule_standing ON alarm (rule_id)
    WHERE rule_id IS NOT NULL AND state <> 'normal' AND withdrawn_at IS NULL;
