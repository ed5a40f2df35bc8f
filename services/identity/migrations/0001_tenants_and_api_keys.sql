-- Tenants and their API keys.

CREATE TABLE tenants (
    tenant_id    text COLLATE "C" PRIMARY KEY,
    -- A repeated request finds the tenant it made.
    request_id   text        NOT NULL UNIQUE,
    display_name text        NOT NULL,
    create_time  timestamptz NOT NULL
);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

CREATE TABLE api_keys (
    -- Ordered by the time it was made, byte by byte.
    api_key_id    text COLLATE "C" PRIMARY KEY,
    tenant_id     text        NOT NULL REFERENCES tenants (tenant_id),
    request_id    text        NOT NULL,
    display_name  text        NOT NULL,
    scopes        text[]      NOT NULL,
    -- SHA-256 of the secret, which is kept nowhere.
    secret_digest bytea       NOT NULL CHECK (octet_length(secret_digest) = 32),
    create_time   timestamptz NOT NULL,
    revoke_time   timestamptz,
    expire_time   timestamptz,
    -- A repeated request finds the key it made.
    UNIQUE (tenant_id, request_id)
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, api_key_id);
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
