-- What every context refers to: addresses, locations, contacts, notes, labels, settings, attachments. Notes, labels,
-- contacts and attachments are on any record: its table's name and its id.

CREATE FUNCTION is_record(entity text, id uuid) RETURNS boolean LANGUAGE plpgsql STABLE COST 1000
SET search_path FROM CURRENT AS $$
DECLARE
    is_there boolean := false;
BEGIN
    -- A table of records has an id and counts its versions; any other name is no record.
    IF EXISTS (SELECT FROM pg_class c
        JOIN pg_attribute i ON i.attrelid = c.oid AND i.attname = 'id' AND i.atttypid = 'uuid'::regtype
        JOIN pg_attribute v ON v.attrelid = c.oid AND v.attname = 'version'
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname = is_record.entity)
    THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I t WHERE t.id = $1)', entity) INTO is_there USING is_record.id;
    END IF;
    RETURN is_there;
END $$;
COMMENT ON FUNCTION is_record IS 'whether there is such a record within the lines the caller reaches';

CREATE FUNCTION must_be_on_a_record() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.entity IS NOT NULL AND NEW.entity_id IS NOT NULL AND NOT is_record(NEW.entity, NEW.entity_id) THEN
        RAISE check_violation USING MESSAGE = 'no such record',
            CONSTRAINT = 'entity and entity_id must name a record that exists', TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION must_be_on_a_record IS 'checked when it is written; what is on a record outlives it';

CREATE TABLE address (
    id          uuid PRIMARY KEY,
    version     int NOT NULL DEFAULT 1,
    street      text NOT NULL DEFAULT '',
    city        text NOT NULL,
    region      text NOT NULL DEFAULT '',
    postal_code text NOT NULL DEFAULT '',
    country     text NOT NULL,
    latitude    float8,
    longitude   float8,
    CONSTRAINT "a street has at most 200 characters" CHECK (length(street) <= 200),
    CONSTRAINT "a city has 1 to 100 characters" CHECK (length(city) BETWEEN 1 AND 100),
    CONSTRAINT "a region has at most 100 characters" CHECK (length(region) <= 100),
    CONSTRAINT "a postal code has at most 40 characters" CHECK (length(postal_code) <= 40),
    CONSTRAINT "a country is two capital letters (ISO 3166-1)" CHECK (country ~ '^[A-Z]{2}$'),
    CONSTRAINT "a latitude is -90 to 90 degrees" CHECK (latitude BETWEEN -90 AND 90),
    CONSTRAINT "a longitude is -180 to 180 degrees" CHECK (longitude BETWEEN -180 AND 180),
    CONSTRAINT "latitude and longitude are given together" CHECK ((latitude IS NULL) = (longitude IS NULL))
);
COMMENT ON TABLE address IS 'a physical place, in the words of the post or by coordinates (WGS 84)';
CREATE INDEX address_city ON address (city, id);
CREATE INDEX address_country ON address (country, id);

CREATE FUNCTION is_gln(code text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN code ~ '^[0-9]{13}$' THEN
        (SELECT sum(substr(code, place, 1)::int * CASE place % 2 WHEN 0 THEN 3 ELSE 1 END) % 10 = 0
         FROM generate_series(1, 13) AS place)
    ELSE false END
$$;
COMMENT ON FUNCTION is_gln IS 'GS1 General Specifications, check digit of 13 digits';

-- Whether an address says what 21 CFR 1.1310 wants of a location description: street or coordinates, city, country,
-- and in the United States the state and the zip code.
CREATE FUNCTION is_located(address uuid) RETURNS boolean LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT coalesce((SELECT (a.street <> '' OR a.latitude IS NOT NULL)
            AND (a.country <> 'US' OR (a.region <> '' AND a.postal_code <> ''))
        FROM address a WHERE a.id = is_located.address), false)
$$;

CREATE TABLE location (
    id               uuid PRIMARY KEY,
    version          int NOT NULL DEFAULT 1,
    code             text NOT NULL UNIQUE,
    business_name    text NOT NULL,
    phone            text,
    address_id       uuid REFERENCES address,
    gln              text UNIQUE,
    plant_id         uuid REFERENCES plant,
    valid_from       date,
    valid_until      date,
    is_fsma_complete boolean NOT NULL DEFAULT false,
    CONSTRAINT "a code has 1 to 40 characters" CHECK (length(code) BETWEEN 1 AND 40),
    CONSTRAINT "a business name has 1 to 200 characters" CHECK (length(business_name) BETWEEN 1 AND 200),
    CONSTRAINT "a phone number is 3 to 40 digits, spaces and +()./x-" CHECK (phone ~ '^[0-9+() ./x-]{3,40}$'),
    CONSTRAINT "a GLN is 13 digits with a good check digit" CHECK (gln IS NULL OR is_gln(gln)),
    CONSTRAINT "valid_until is not before valid_from" CHECK (valid_until >= valid_from)
);
COMMENT ON TABLE location IS 'where food is handled, as traceability records describe it: location description of 21 CFR 1.1310';
COMMENT ON COLUMN location.valid_from IS 'first day on which it is in use; null for always';
COMMENT ON COLUMN location.valid_until IS 'last day on which it is in use; null while no end is known';
COMMENT ON COLUMN location.is_fsma_complete IS 'business name, phone and a whole address are there; follows the address by trigger, without a new version';
CREATE INDEX location_business_name ON location (business_name, id);
CREATE INDEX location_address ON location (address_id);

CREATE FUNCTION judge_location() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.is_fsma_complete := NEW.phone IS NOT NULL AND is_located(NEW.address_id);
    RETURN NEW;
END $$;
CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON location FOR EACH ROW EXECUTE FUNCTION judge_location();

CREATE FUNCTION judge_locations_again() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE location SET address_id = address_id WHERE address_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER judge_locations AFTER UPDATE ON address FOR EACH ROW EXECUTE FUNCTION judge_locations_again();

CREATE TABLE contact (
    id         uuid PRIMARY KEY,
    version    int NOT NULL DEFAULT 1,
    name       text NOT NULL,
    duty       text,
    email      text,
    phone      text,
    address_id uuid REFERENCES address,
    entity     text,
    entity_id  uuid,
    CONSTRAINT "a name has 1 to 200 characters" CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT "a duty has 1 to 200 characters" CHECK (length(duty) BETWEEN 1 AND 200),
    CONSTRAINT "an e-mail address has a name, an @ and a domain"
        CHECK (email ~ '^[^[:space:]@]+@[^[:space:]@]+$' AND length(email) <= 254),
    CONSTRAINT "a phone number is 3 to 40 digits, spaces and +()./x-" CHECK (phone ~ '^[0-9+() ./x-]{3,40}$'),
    CONSTRAINT "entity and entity_id are given together" CHECK ((entity IS NULL) = (entity_id IS NULL))
);
COMMENT ON COLUMN contact.duty IS 'what to call this person for';
CREATE INDEX contact_name ON contact (name, id);
CREATE INDEX contact_on ON contact (entity, entity_id);
CREATE TRIGGER on_a_record BEFORE INSERT OR UPDATE OF entity, entity_id ON contact
    FOR EACH ROW EXECUTE FUNCTION must_be_on_a_record();

CREATE TABLE note (
    id        uuid PRIMARY KEY,
    version   int NOT NULL DEFAULT 1,
    entity    text NOT NULL,
    entity_id uuid NOT NULL,
    body      text NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT "a note has 1 to 10000 characters" CHECK (length(body) BETWEEN 1 AND 10000)
);
COMMENT ON TABLE note IS 'who wrote it is in the audit chain';
CREATE INDEX note_on ON note (entity, entity_id);
CREATE INDEX note_noted ON note (noted_at, id);
CREATE TRIGGER on_a_record BEFORE INSERT OR UPDATE OF entity, entity_id ON note
    FOR EACH ROW EXECUTE FUNCTION must_be_on_a_record();

CREATE TABLE label (
    id          uuid PRIMARY KEY,
    version     int NOT NULL DEFAULT 1,
    name        text NOT NULL UNIQUE,
    colour      text,
    description text NOT NULL DEFAULT '',
    CONSTRAINT "a name has 1 to 40 characters" CHECK (length(name) BETWEEN 1 AND 40),
    CONSTRAINT "a colour is # and six hexadecimal digits" CHECK (colour ~ '^#[0-9a-fA-F]{6}$'),
    CONSTRAINT "a description has at most 1000 characters" CHECK (length(description) <= 1000)
);

CREATE TABLE label_use (
    id        uuid PRIMARY KEY,
    version   int NOT NULL DEFAULT 1,
    label_id  uuid NOT NULL REFERENCES label,
    entity    text NOT NULL,
    entity_id uuid NOT NULL,
    UNIQUE (entity, entity_id, label_id)
);
CREATE INDEX label_use_label ON label_use (label_id);
CREATE TRIGGER on_a_record BEFORE INSERT OR UPDATE OF entity, entity_id ON label_use
    FOR EACH ROW EXECUTE FUNCTION must_be_on_a_record();

CREATE TABLE system_config (
    id          uuid PRIMARY KEY,
    version     int NOT NULL DEFAULT 1,
    key         text NOT NULL UNIQUE,
    value       jsonb NOT NULL,
    description text NOT NULL DEFAULT '',
    CONSTRAINT "a key is 1 to 100 of a-z, 0-9, _, - and ." CHECK (key ~ '^[a-z][a-z0-9_.-]{0,99}$'),
    CONSTRAINT "a value has at most 64 KiB" CHECK (octet_length(value::text) <= 65536),
    CONSTRAINT "a description has at most 1000 characters" CHECK (length(description) <= 1000)
);
COMMENT ON TABLE system_config IS 'settings of the tenant; no place for secrets, which everybody who may read it would see';

CREATE TABLE attachment (
    id          uuid PRIMARY KEY,
    version     int NOT NULL DEFAULT 1,
    entity      text NOT NULL,
    entity_id   uuid NOT NULL,
    name        text NOT NULL,
    media_type  text NOT NULL,
    bytes       bigint NOT NULL CHECK (bytes >= 0),
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    uploaded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT "a name has 1 to 200 characters" CHECK (length(name) BETWEEN 1 AND 200)
);
COMMENT ON TABLE attachment IS 'the content is a file named by its hash in the hub''s data_dir: attachments/<tenant>/<sha256>';
COMMENT ON COLUMN attachment.media_type IS 'as the hub found it from the content, whatever the sender said';
CREATE INDEX attachment_on ON attachment (entity, entity_id);
CREATE INDEX attachment_name ON attachment (name, id);
CREATE INDEX attachment_uploaded ON attachment (uploaded_at, id);
CREATE INDEX attachment_sha256 ON attachment (sha256);
CREATE TRIGGER on_a_record BEFORE INSERT OR UPDATE OF entity, entity_id ON attachment
    FOR EACH ROW EXECUTE FUNCTION must_be_on_a_record();

-- Plants and equipment become plain records.
ALTER TABLE equipment ADD COLUMN version int NOT NULL DEFAULT 1;
ALTER TABLE equipment ADD CONSTRAINT "a code has 1 to 40 characters" CHECK (length(code) BETWEEN 1 AND 40) NOT VALID;
ALTER TABLE equipment ADD CONSTRAINT "a name has 1 to 200 characters" CHECK (length(name) BETWEEN 1 AND 200) NOT VALID;
ALTER TABLE plant ADD CONSTRAINT "a code has 1 to 40 characters" CHECK (length(code) BETWEEN 1 AND 40) NOT VALID;
ALTER TABLE plant ADD CONSTRAINT "a name has 1 to 200 characters" CHECK (length(name) BETWEEN 1 AND 200) NOT VALID;
CREATE INDEX plant_name ON plant (name, id);
CREATE INDEX equipment_name ON equipment (name, id);
CREATE INDEX equipment_line ON equipment (line_id);

-- What is on a record is reached with the record; what belongs to no line is changed only by who holds the
-- permission everywhere.
DO $$
DECLARE
    tbl text;
BEGIN
    FOREACH tbl IN ARRAY ARRAY['contact', 'note', 'label_use', 'attachment'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tbl);
        EXECUTE format('CREATE POLICY by_record ON %I USING (is_everywhere() OR entity IS NULL '
            'OR is_record(entity, entity_id)) WITH CHECK (is_everywhere() OR entity IS NOT NULL)', tbl);
        EXECUTE format('CREATE POLICY shared_stays ON %I AS RESTRICTIVE FOR DELETE '
            'USING (is_everywhere() OR entity IS NOT NULL)', tbl);
    END LOOP;
    FOREACH tbl IN ARRAY ARRAY['supplier', 'address', 'location', 'label', 'system_config'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tbl);
        EXECUTE format('CREATE POLICY by_tenant ON %I USING (true) WITH CHECK (is_everywhere())', tbl);
        EXECUTE format('CREATE POLICY shared_stays ON %I AS RESTRICTIVE FOR DELETE USING (is_everywhere())', tbl);
    END LOOP;
END $$;
