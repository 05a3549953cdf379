-- People and keys: roles with permissions, granted everywhere or on one plant or line; sessions; API keys.

ALTER TABLE app_user ALTER COLUMN role DROP NOT NULL;
ALTER TABLE app_user ALTER COLUMN password_hash DROP NOT NULL;
ALTER TABLE app_user ADD COLUMN email_verified_at timestamptz;
ALTER TABLE app_user ADD CONSTRAINT "an e-mail address has a name, an @ and a domain"
    CHECK (email ~ '^[^[:space:]@]+@[^[:space:]@]+$' AND length(email) <= 254) NOT VALID;
COMMENT ON COLUMN app_user.role IS 'as programs before 0.2 knew it; user_role has taken its place';
COMMENT ON COLUMN app_user.password_hash IS 'Argon2id in PHC form; null for who signs in elsewhere or was only invited';
UPDATE app_user SET email_verified_at = created_at;

CREATE TABLE role (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    version     int NOT NULL DEFAULT 1,
    name        text NOT NULL UNIQUE,
    description text NOT NULL DEFAULT '',
    is_builtin  boolean NOT NULL DEFAULT false,
    CONSTRAINT "a role name is 1 to 40 of a-z, 0-9 and _" CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$')
);
COMMENT ON COLUMN role.is_builtin IS 'its permissions are the program''s and follow it; those of other roles are in role_permission';
INSERT INTO role (name, description, is_builtin) VALUES
    ('admin', 'Everything within the tenant', true),
    ('supervisor', 'Runs a shift', true),
    ('fsq_manager', 'Food safety and quality: deviations, holds, dispositions', true),
    ('operator', 'Works a line', true),
    ('integrator', 'A machine that exchanges data', true),
    ('auditor', 'Reads everything, changes nothing', true);

CREATE TABLE role_permission (
    role_id    uuid NOT NULL REFERENCES role ON DELETE CASCADE,
    permission text NOT NULL,
    PRIMARY KEY (role_id, permission)
);

CREATE TABLE user_role (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid NOT NULL REFERENCES app_user,
    role_id    uuid NOT NULL REFERENCES role,
    plant_id   uuid REFERENCES plant,
    line_id    uuid REFERENCES line,
    granted_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (user_id, role_id, plant_id, line_id),
    CONSTRAINT "a role is granted on a plant or on a line, not both" CHECK (plant_id IS NULL OR line_id IS NULL)
);
COMMENT ON TABLE user_role IS 'without plant and line it holds in the whole tenant';
CREATE INDEX user_role_user ON user_role (user_id);
INSERT INTO user_role (user_id, role_id) SELECT u.id, r.id FROM app_user u JOIN role r ON r.name = u.role;

CREATE TABLE session (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES app_user,
    started_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    auth_factor   text NOT NULL CHECK (auth_factor IN ('password', 'identity_provider')),
    ended_at      timestamptz,
    ended_because text CHECK (ended_because IN ('logout', 'reuse', 'password', 'suspended', 'expired', 'admin')),
    CHECK ((ended_at IS NULL) = (ended_because IS NULL))
);
CREATE INDEX session_user_id ON session (user_id) WHERE ended_at IS NULL;
COMMENT ON TABLE session IS 'a family of refresh tokens; when it ends, its access tokens are refused at once';

CREATE TABLE refresh_token (
    token_sha256 bytea PRIMARY KEY CHECK (length(token_sha256) = 32),
    session_id   uuid NOT NULL REFERENCES session,
    issued_at    timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE INDEX refresh_token_session ON refresh_token (session_id);
COMMENT ON COLUMN refresh_token.used_at IS 'a token is good once; used again, it ends the session: somebody has a copy';

CREATE TABLE one_time_token (
    token_sha256 bytea PRIMARY KEY CHECK (length(token_sha256) = 32),
    user_id      uuid NOT NULL REFERENCES app_user,
    purpose      text NOT NULL CHECK (purpose IN ('verify_email', 'reset_password', 'invitation')),
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE INDEX one_time_token_user ON one_time_token (user_id, purpose);

CREATE TABLE api_key (
    id            uuid PRIMARY KEY,
    version       int NOT NULL DEFAULT 1,
    name          text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    secret_sha256 bytea NOT NULL CHECK (length(secret_sha256) = 32),
    permissions   text[] NOT NULL,
    plant_id      uuid REFERENCES plant,
    line_id       uuid REFERENCES line,
    created_by    uuid REFERENCES app_user,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    CONSTRAINT "a key is for a plant or for a line, not both" CHECK (plant_id IS NULL OR line_id IS NULL)
);
COMMENT ON COLUMN api_key.secret_sha256 IS 'SHA-256 of a 256-bit random secret that is shown once';
COMMENT ON COLUMN api_key.last_used_at IS 'to the minute';

-- What a caller may do, asked once a request, as JSON: {"name", "grants": [{"role", "is_builtin", "permissions",
-- "lines"}]}; lines null means everywhere. No row when the account or its session is no longer good.
CREATE FUNCTION lines_of(plant uuid, line uuid) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN line IS NOT NULL THEN json_build_array(line)
        WHEN plant IS NOT NULL THEN (SELECT coalesce(json_agg(l.id), '[]') FROM line l WHERE l.plant_id = plant)
    END
$$;

CREATE FUNCTION user_grants(who uuid, in_session uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT json_build_object('name', u.display_name, 'grants', (
        SELECT coalesce(json_agg(json_build_object('role', r.name, 'is_builtin', r.is_builtin,
            'permissions', (SELECT coalesce(json_agg(p.permission), '[]') FROM role_permission p WHERE p.role_id = r.id),
            'lines', lines_of(g.plant_id, g.line_id))), '[]')
        FROM user_role g JOIN role r ON r.id = g.role_id WHERE g.user_id = u.id))::text
    FROM app_user u
    WHERE u.id = who AND u.is_active AND (in_session IS NULL OR EXISTS (
        SELECT FROM session s WHERE s.id = in_session AND s.user_id = who AND s.ended_at IS NULL))
$$;

CREATE FUNCTION key_grants(which uuid, secret bytea, at timestamptz) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT json_build_object('name', k.name, 'grants', json_build_array(json_build_object('role', 'api_key',
        'is_builtin', false, 'permissions', to_json(k.permissions), 'lines', lines_of(k.plant_id, k.line_id))))::text
    FROM api_key k
    WHERE k.id = which AND k.secret_sha256 = secret AND k.revoked_at IS NULL AND k.expires_at > at
$$;
