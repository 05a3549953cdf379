-- Which lines may this transaction touch? `foodflow.lines` is set when a transaction takes the tenant's role: '*',
-- or the ids of the lines on which the caller holds the permission it came with. A transaction that never set it
-- sees no row: reading the setting fails. The owner of the tables (migrations) is not bound by this.

CREATE FUNCTION sees_line(line uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN current_setting('foodflow.lines') = '*' THEN true
        ELSE line IS NULL OR line = ANY (current_setting('foodflow.lines')::uuid[]) END
$$;
COMMENT ON FUNCTION sees_line IS 'what belongs to no line is seen by everybody in the tenant';

CREATE FUNCTION owns_line(line uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN current_setting('foodflow.lines') = '*' THEN true
        ELSE coalesce(line = ANY (current_setting('foodflow.lines')::uuid[]), false) END
$$;
COMMENT ON FUNCTION owns_line IS 'what belongs to no line is changed only by who holds the permission everywhere';

CREATE FUNCTION is_everywhere() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT current_setting('foodflow.lines') = '*'
$$;

DO $$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT * FROM (VALUES
        ('line', 'id'), ('equipment', 'line_id'), ('sku', 'line_id'), ('batch', 'line_id'), ('tag', 'line_id'),
        ('alarm', 'line_id'), ('ccp', 'line_id'), ('vision_result', 'line_id')) AS v (tbl, col)
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part.tbl);
        EXECUTE format('CREATE POLICY by_line ON %I USING (sees_line(%I)) WITH CHECK (owns_line(%I))',
            part.tbl, part.col, part.col);
    END LOOP;
    -- Rows that belong to a line through another row; that row's own policy decides.
    FOR part IN SELECT * FROM (VALUES
        ('batch_interval', 'false', 'EXISTS (SELECT FROM batch x WHERE x.id = batch_id)'),
        ('ccp_check', 'false', 'EXISTS (SELECT FROM ccp x WHERE x.id = ccp_id)'),
        ('deviation', 'false', 'EXISTS (SELECT FROM ccp x WHERE x.id = ccp_id)'),
        ('plant', 'false', 'EXISTS (SELECT FROM line x WHERE x.plant_id = plant.id)'),
        ('hold', 'deviation_id IS NULL', 'EXISTS (SELECT FROM deviation x WHERE x.id = deviation_id)'),
        ('lot', 'batch_id IS NULL AND equipment_id IS NULL', 'EXISTS (SELECT FROM batch x WHERE x.id = batch_id)'
            ' OR EXISTS (SELECT FROM equipment x WHERE x.id = equipment_id)')) AS v (tbl, shared, own)
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part.tbl);
        EXECUTE format('CREATE POLICY by_line ON %I USING (is_everywhere() OR %s OR %s) WITH CHECK (is_everywhere() OR %s)',
            part.tbl, part.shared, part.own, part.own);
    END LOOP;
END $$;
