-- What the cameras saw, and what was concluded.

CREATE TABLE vision_result (
    id            uuid PRIMARY KEY,
    edge_id       uuid NOT NULL REFERENCES edge,
    camera        text NOT NULL,
    line_id       uuid REFERENCES line,
    taken_at      timestamptz NOT NULL,
    received_at   timestamptz NOT NULL DEFAULT now(),
    verdict       text NOT NULL CHECK (verdict IN ('pass', 'reject', 'unknown')),
    reason        text,
    defects       jsonb NOT NULL,
    width_px      int NOT NULL,
    height_px     int NOT NULL,
    frame_sha256  text NOT NULL,
    model_name    text,
    model_version text,
    model_sha256  text,
    latency_us    int NOT NULL,
    thumbnail     bytea,
    CHECK (verdict <> 'unknown' OR reason IS NOT NULL)
);
COMMENT ON COLUMN vision_result.model_sha256 IS 'the exact model, so that the verdict can be replayed on the frame with frame_sha256';
CREATE INDEX vision_result_taken ON vision_result (taken_at DESC, id);
CREATE INDEX vision_result_verdict ON vision_result (verdict, taken_at DESC);
