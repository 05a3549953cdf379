-- Roots of the audit chain are appended by one function, as links of the chain are: the tenant's role cannot write
-- them. The signature is made and checked by the program; what the database can check, it does.

CREATE FUNCTION sign_root(of_day date, of_seq bigint, of_hash bytea, said text, by_signature bytea, by_key bytea)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    newest date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('root ' || 'audit_root'::regclass::oid, 0));
    SELECT max(day) INTO newest FROM audit_root;
    IF of_day <= newest THEN
        RETURN false;
    END IF;
    IF of_day > newest + 1 THEN
        RAISE EXCEPTION 'the root of % comes first', newest + 1;
    END IF;
    IF NOT EXISTS (SELECT FROM audit_event WHERE seq = of_seq AND hash = of_hash) THEN
        RAISE EXCEPTION 'a root must be of a row of the chain';
    END IF;
    INSERT INTO audit_root (day, last_seq, last_hash, statement, signature, public_key)
    VALUES (of_day, of_seq, of_hash, said, by_signature, by_key);
    RETURN true;
END $$;
COMMENT ON FUNCTION sign_root IS 'appends the root of the day after the newest; false when that day has one already';

-- What runs as the owner looks for tables in the tenant's schema first and among temporary ones last: else a
-- temporary table called audit_event would take the place of the chain.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION record(text[], text[]) SET search_path TO %I, public, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION sign_root(date, bigint, bytea, text, bytea, bytea) '
        'SET search_path TO %I, public, pg_temp', current_schema());
END $$;
