-- Connections of tenants to providers, with their sealed credentials.

CREATE TABLE connections (
    -- Ordered by the time it was made, byte by byte.
    connection_id      text COLLATE "C" PRIMARY KEY,
    tenant_id          text        NOT NULL,
    request_id         text        NOT NULL,
    provider           text        NOT NULL,
    domain             text        NOT NULL,
    display_name       text        NOT NULL,
    environment        text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    base_url           text        NOT NULL,
    settings           jsonb       NOT NULL,
    credential_names   text[]      NOT NULL,
    encryption_key_id  text        NOT NULL,
    -- Encrypted, and bound to the tenant, the connection and the key.
    sealed_credentials bytea,
    create_time        timestamptz NOT NULL,
    update_time        timestamptz NOT NULL,
    -- A deleted connection loses its credentials. The rest stays, so that a repeated request finds what it did.
    delete_time        timestamptz,
    delete_request_id  text,
    UNIQUE (tenant_id, request_id),
    CHECK ((delete_time IS NULL) = (sealed_credentials IS NOT NULL)),
    CHECK ((delete_time IS NULL) = (delete_request_id IS NULL))
);
CREATE INDEX connections_by_tenant ON connections (tenant_id, connection_id) WHERE delete_time IS NULL;
-- Which rows a key still holds, before it is retired.
CREATE INDEX connections_by_encryption_key ON connections (encryption_key_id) WHERE delete_time IS NULL;
ALTER TABLE connections ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON connections
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
