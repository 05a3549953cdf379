-- Sign-in at a plant's own identity provider (OpenID Connect).

CREATE TABLE identity_provider (
    id             uuid PRIMARY KEY,
    version        int NOT NULL DEFAULT 1,
    name           text NOT NULL UNIQUE,
    display_name   text NOT NULL,
    issuer         text NOT NULL,
    client_id      text NOT NULL,
    client_secret  bytea,
    scopes         text[] NOT NULL,
    email_domains  text[] NOT NULL,
    role_claim     text,
    role_mapping   jsonb NOT NULL,
    auto_provision boolean NOT NULL,
    is_active      boolean NOT NULL,
    problem        text,
    CONSTRAINT "a provider name is 1 to 40 of a-z, 0-9 and -" CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    CONSTRAINT "a display name has 1 to 100 characters" CHECK (length(display_name) BETWEEN 1 AND 100),
    CONSTRAINT "an issuer has 1 to 500 characters" CHECK (length(issuer) BETWEEN 1 AND 500),
    CONSTRAINT "a client id has 1 to 300 characters" CHECK (length(client_id) BETWEEN 1 AND 300),
    CONSTRAINT "a claim name has 1 to 200 characters" CHECK (length(role_claim) BETWEEN 1 AND 200),
    CONSTRAINT "a role mapping needs the name of a claim" CHECK (role_claim IS NOT NULL OR role_mapping = '[]')
);
COMMENT ON TABLE identity_provider IS 'where people of this tenant may prove who they are, besides with a password here';
COMMENT ON COLUMN identity_provider.client_secret IS 'sealed; null for a public client';
COMMENT ON COLUMN identity_provider.email_domains IS 'addresses of these domains may be linked to accounts; none when empty';
COMMENT ON COLUMN identity_provider.role_mapping IS '[{"value", "role"}]: who has the value in role_claim holds the role everywhere, as of each sign-in';
COMMENT ON COLUMN identity_provider.problem IS 'why it could not be reached when it was saved; null when it answered';

CREATE TABLE identity_link (
    provider_id   uuid NOT NULL REFERENCES identity_provider ON DELETE CASCADE,
    subject       text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id       uuid NOT NULL REFERENCES app_user,
    linked_at     timestamptz NOT NULL,
    PRIMARY KEY (provider_id, subject),
    UNIQUE (provider_id, user_id)
);
CREATE INDEX identity_link_user ON identity_link (user_id);
COMMENT ON TABLE identity_link IS 'whom a provider''s subject is here; made at the first sign-in by a verified address, kept when that changes';

CREATE TABLE oidc_attempt (
    state_sha256   bytea PRIMARY KEY CHECK (length(state_sha256) = 32),
    browser_sha256 bytea NOT NULL CHECK (length(browser_sha256) = 32),
    provider_id    uuid NOT NULL REFERENCES identity_provider ON DELETE CASCADE,
    secrets        bytea NOT NULL,
    return_to      text NOT NULL,
    expires_at     timestamptz NOT NULL
);
CREATE INDEX oidc_attempt_expires_at ON oidc_attempt (expires_at);
COMMENT ON TABLE oidc_attempt IS 'a sign-in under way: the state is good once, for ten minutes, in the browser that began it';
COMMENT ON COLUMN oidc_attempt.secrets IS 'nonce and PKCE verifier, sealed';
