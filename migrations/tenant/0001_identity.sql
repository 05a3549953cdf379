-- Who may do what in this tenant.

CREATE TABLE app_user (
    id            uuid PRIMARY KEY,
    version       int NOT NULL DEFAULT 1,
    email         text NOT NULL UNIQUE CHECK (email = lower(email)),
    display_name  text NOT NULL,
    password_hash text NOT NULL,
    role          text NOT NULL CHECK (role IN ('admin', 'supervisor', 'fsq_manager', 'operator', 'integrator', 'auditor')),
    is_active     boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN app_user.password_hash IS 'Argon2id in PHC form';
