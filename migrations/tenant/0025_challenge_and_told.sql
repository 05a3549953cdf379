-- When control points are challenged, what limit a first change took the place of, and what integrators were told.

ALTER TABLE ccp ADD COLUMN challenge_every_us bigint CHECK (challenge_every_us > 0);
ALTER TABLE ccp ADD COLUMN challenge_grace_us bigint CHECK (challenge_grace_us >= 0);
ALTER TABLE ccp ADD CONSTRAINT "an interval of challenges and its grace are given together"
    CHECK ((challenge_every_us IS NULL) = (challenge_grace_us IS NULL));
COMMENT ON COLUMN ccp.challenge_every_us IS 'a challenge is due so long after the one before; null: the point is monitored all the time';
COMMENT ON COLUMN ccp.challenge_grace_us IS 'it is missed when it is so much overdue';

ALTER TABLE ccp_limit ADD COLUMN low_before float8;
ALTER TABLE ccp_limit ADD COLUMN high_before float8;
COMMENT ON COLUMN ccp_limit.low_before IS 'of the version that this one took the place of, which nobody may have set here';

CREATE TABLE integrator_error (
    edge_id  uuid NOT NULL REFERENCES edge,
    hour     timestamptz NOT NULL,
    code     text NOT NULL,
    number   text NOT NULL,
    count    bigint NOT NULL CHECK (count > 0),
    topic    text NOT NULL,
    hint     text NOT NULL,
    sample   text NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL,
    PRIMARY KEY (edge_id, hour, code)
);
COMMENT ON TABLE integrator_error IS 'what clients were told is wrong, counted by hour, with the newest of each; kept for eight days';
