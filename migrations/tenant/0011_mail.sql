-- Letters to people, and passwords that two administrators reset together.

CREATE TABLE mail_message (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL,
    user_id    uuid NOT NULL REFERENCES app_user,
    recipient  bytea,
    letter     bytea,
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed')),
    attempts   int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    next_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    sent_at    timestamptz,
    last_error text,
    CONSTRAINT mail_message_is_erased_once_it_is_done
        CHECK ((state = 'waiting') = (recipient IS NOT NULL AND letter IS NOT NULL)),
    CONSTRAINT mail_message_sent CHECK ((state = 'sent') = (sent_at IS NOT NULL))
);
COMMENT ON TABLE mail_message IS 'mail waiting to be sent, written in the transaction of the deed it tells of; what was sent or given up is forgotten after 30 days';
COMMENT ON COLUMN mail_message.recipient IS 'the address, sealed under the hub''s key; erased once sent or given up';
COMMENT ON COLUMN mail_message.letter IS 'subject and text as JSON, sealed; it may carry a one-time token. Erased once sent or given up';
COMMENT ON COLUMN mail_message.next_at IS 'not tried before; a hub that sends it moves this ahead, so that no other does';
COMMENT ON COLUMN mail_message.expires_at IS 'a letter whose token is no longer good is not sent';
COMMENT ON COLUMN mail_message.last_error IS 'the kind of failure; never an address';
CREATE INDEX mail_message_due ON mail_message (next_at) WHERE state = 'waiting';

CREATE TABLE break_glass (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES app_user,
    reason       text NOT NULL,
    requested_by uuid NOT NULL REFERENCES app_user,
    requested_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    approved_by  uuid REFERENCES app_user,
    approved_at  timestamptz,
    CONSTRAINT "a reason has 1 to 500 characters" CHECK (length(reason) BETWEEN 1 AND 500),
    CONSTRAINT "nobody resets their own password this way" CHECK (user_id <> requested_by AND user_id <> approved_by),
    CONSTRAINT "a second administrator approves" CHECK (approved_by <> requested_by),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL))
);
COMMENT ON TABLE break_glass IS 'a password reset without the account''s mailbox: asked for by one administrator, approved by another';
CREATE INDEX break_glass_open ON break_glass (user_id, expires_at) WHERE approved_at IS NULL;
