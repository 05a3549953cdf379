-- Who we buy from.

CREATE TABLE supplier (
    id              uuid PRIMARY KEY,
    version         int NOT NULL DEFAULT 1,
    code            text NOT NULL UNIQUE,
    name            text NOT NULL,
    audit_score_pct float8,
    approved_until  date,
    CONSTRAINT "a code has 1 to 40 characters" CHECK (length(code) BETWEEN 1 AND 40),
    CONSTRAINT "a name has 1 to 200 characters" CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT "an audit score is 0 to 100 percent" CHECK (audit_score_pct BETWEEN 0 AND 100)
);
COMMENT ON COLUMN supplier.approved_until IS 'last day of the approval; null while there is none';
CREATE INDEX supplier_name ON supplier (name, id);
