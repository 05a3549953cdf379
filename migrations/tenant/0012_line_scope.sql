-- Line scope, second version: who works everywhere pays for it once a statement instead of once a row; deleting is
-- changing; and the tables that were missing.

-- The lines of this transaction; none for who works everywhere, because nothing asks then.
CREATE FUNCTION my_lines() RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN current_setting('foodflow.lines') = '*' THEN '{}' ELSE current_setting('foodflow.lines')::uuid[] END
$$;
COMMENT ON FUNCTION my_lines IS 'call it as (SELECT my_lines()), which is evaluated once a statement';

DO $$
DECLARE
    part record;
    sees text;
    owns text;
BEGIN
    -- (SELECT is_everywhere()) is evaluated once a statement, and the rest only where it is false.
    FOR part IN SELECT * FROM (VALUES
        ('line', 'id'), ('equipment', 'line_id'), ('sku', 'line_id'), ('batch', 'line_id'), ('tag', 'line_id'),
        ('alarm', 'line_id'), ('ccp', 'line_id'), ('vision_result', 'line_id')) AS v (tbl, col)
    LOOP
        owns := format('(SELECT is_everywhere()) OR coalesce(%I = ANY ((SELECT my_lines())::uuid[]), false)', part.col);
        sees := format('(SELECT is_everywhere()) OR %1$I IS NULL OR %1$I = ANY ((SELECT my_lines())::uuid[])', part.col);
        EXECUTE format('DROP POLICY by_line ON %I', part.tbl);
        EXECUTE format('CREATE POLICY by_line ON %I USING (%s) WITH CHECK (%s)', part.tbl, sees, owns);
        EXECUTE format('CREATE POLICY delete_by_line ON %I AS RESTRICTIVE FOR DELETE USING (%s)', part.tbl, owns);
    END LOOP;
    -- Rows that belong to a line through another row; that row's own policy decides. `shared` is seen by everybody
    -- and changed by who works everywhere.
    FOR part IN SELECT * FROM (VALUES
        ('batch_interval', 'false', 'EXISTS (SELECT FROM batch x WHERE x.id = batch_id)'),
        ('ccp_check', 'false', 'EXISTS (SELECT FROM ccp x WHERE x.id = ccp_id)'),
        ('deviation', 'false', 'EXISTS (SELECT FROM ccp x WHERE x.id = ccp_id)'),
        -- A plant is seen by who sees one of its lines, and changed by who works everywhere.
        ('plant', 'EXISTS (SELECT FROM line x WHERE x.plant_id = plant.id)', 'false'),
        ('lot', 'batch_id IS NULL AND equipment_id IS NULL', 'EXISTS (SELECT FROM batch x WHERE x.id = batch_id)'
            ' OR EXISTS (SELECT FROM equipment x WHERE x.id = equipment_id)'),
        -- Genealogy and holds name lots: a row is seen by who sees the lots it names.
        ('lot_edge', 'false', 'EXISTS (SELECT FROM lot x WHERE x.id = parent_id) AND EXISTS (SELECT FROM lot x'
            ' WHERE x.id = child_id)'),
        ('hold_lot', 'false', 'EXISTS (SELECT FROM lot x WHERE x.id = lot_id)'),
        -- A hold is seen by who sees its deviation or one of its lots: their product is held, wherever it went wrong.
        ('hold', 'EXISTS (SELECT FROM hold_lot x WHERE x.hold_id = hold.id)',
            'EXISTS (SELECT FROM deviation x WHERE x.id = deviation_id)'),
        -- Where product comes from and goes to is seen from both ends.
        ('flow_link', 'EXISTS (SELECT FROM equipment x WHERE x.id IN (from_equipment_id, to_equipment_id))',
            'EXISTS (SELECT FROM equipment x WHERE x.id = from_equipment_id) AND EXISTS (SELECT FROM equipment x'
            ' WHERE x.id = to_equipment_id)')) AS v (tbl, shared, own)
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS by_line ON %I', part.tbl);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part.tbl);
        EXECUTE format('CREATE POLICY by_line ON %I USING ((SELECT is_everywhere()) OR %s OR %s) '
            'WITH CHECK ((SELECT is_everywhere()) OR %s)', part.tbl, part.shared, part.own, part.own);
        EXECUTE format('CREATE POLICY delete_by_line ON %I AS RESTRICTIVE FOR DELETE '
            'USING ((SELECT is_everywhere()) OR %s)', part.tbl, part.own);
    END LOOP;
END $$;

-- What is about any record, by the name of its table: seen by who sees that record.
CREATE FUNCTION sees_record(kind text, id uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE kind
        WHEN 'line' THEN EXISTS (SELECT FROM line x WHERE x.id = sees_record.id)
        WHEN 'equipment' THEN EXISTS (SELECT FROM equipment x WHERE x.id = sees_record.id)
        WHEN 'batch' THEN EXISTS (SELECT FROM batch x WHERE x.id = sees_record.id)
        WHEN 'ccp' THEN EXISTS (SELECT FROM ccp x WHERE x.id = sees_record.id)
        WHEN 'deviation' THEN EXISTS (SELECT FROM deviation x WHERE x.id = sees_record.id)
        WHEN 'hold' THEN EXISTS (SELECT FROM hold x WHERE x.id = sees_record.id)
        WHEN 'lot' THEN EXISTS (SELECT FROM lot x WHERE x.id = sees_record.id)
        WHEN 'vision_result' THEN EXISTS (SELECT FROM vision_result x WHERE x.id = sees_record.id)
        ELSE true
    END
$$;
COMMENT ON FUNCTION sees_record IS 'a kind that is not listed belongs to no line';

ALTER TABLE signature ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_line ON signature USING ((SELECT is_everywhere()) OR sees_record(record_type, record_id));
