-- Messages to recipients, with the content that each try hands over.

CREATE TABLE messages (
    -- Ordered by the time it was made, byte by byte.
    message_id         text COLLATE "C" PRIMARY KEY,
    tenant_id          text        NOT NULL,
    -- How providers know it; the same for every try, so that a duplicate can be recognised.
    message_key        text        NOT NULL UNIQUE,
    -- What makes it be, such as "payment_receipt:pay_...": a tenant has one message for it.
    cause              text        NOT NULL,
    source_id          text        NOT NULL,
    template           text        NOT NULL,
    locale             text        NOT NULL,
    recipient          text        NOT NULL,
    subject            text        NOT NULL,
    text               text        NOT NULL,
    html               text        NOT NULL,
    state              text        NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'failed')),
    provider           text        NOT NULL DEFAULT '',
    connection_id      text        NOT NULL DEFAULT '',
    provider_reference text        NOT NULL DEFAULT '',
    -- Also the fence: what a try found out is written only while it is the last one.
    attempts           integer     NOT NULL DEFAULT 0,
    failure            text        NOT NULL DEFAULT '',
    -- The provider says that nothing should be sent to this address any more.
    suppress_recipient boolean     NOT NULL DEFAULT false,
    send_time          timestamptz,
    create_time        timestamptz NOT NULL,
    update_time        timestamptz NOT NULL,
    UNIQUE (tenant_id, cause),
    CHECK (state NOT IN ('sending', 'sent') OR (provider <> '' AND connection_id <> '' AND send_time IS NOT NULL)),
    CHECK (state <> 'failed' OR failure <> '')
);
CREATE INDEX messages_by_tenant ON messages (tenant_id, message_id);
CREATE INDEX messages_by_source ON messages (tenant_id, source_id, message_id) WHERE source_id <> '';
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON messages
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
