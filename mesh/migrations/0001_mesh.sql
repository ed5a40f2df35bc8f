-- Tables that the mesh itself needs in the schema of every service.

CREATE TABLE idempotency (
    tenant_id    text        NOT NULL,
    method       text        NOT NULL,
    request_id   text        NOT NULL,
    request_hash bytea       NOT NULL,
    -- Until then the first call may still be at work. Null once it ended.
    locked_until timestamptz,
    -- Exactly one of the two once the call ended for good.
    response     bytea,
    status       bytea,
    create_time  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, method, request_id)
);
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

CREATE TABLE outbox (
    sequence    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id    text        NOT NULL UNIQUE,
    tenant_id   text        NOT NULL,
    subject     text        NOT NULL,
    event       bytea       NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON outbox
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- Events that a consumer has handled: a second delivery has no effect.
CREATE TABLE inbox (
    consumer    text        NOT NULL,
    event_id    text        NOT NULL,
    tenant_id   text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON inbox
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- Events that a consumer could not handle, to be looked at and driven again.
CREATE TABLE dead_letters (
    dead_letter_id text        PRIMARY KEY,
    consumer       text        NOT NULL,
    event_id       text        NOT NULL,
    tenant_id      text        NOT NULL,
    subject        text        NOT NULL,
    event          bytea       NOT NULL,
    failure        text        NOT NULL,
    deliveries     integer     NOT NULL,
    create_time    timestamptz NOT NULL DEFAULT now(),
    redrive_time   timestamptz,
    UNIQUE (consumer, event_id)
);
ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON dead_letters
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

CREATE TABLE audit_log (
    sequence    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text        NOT NULL,
    subject     text        NOT NULL,
    method      text        NOT NULL,
    request_id  text        NOT NULL,
    resources   jsonb       NOT NULL,
    outcome     text        NOT NULL,
    trace_id    text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id, sequence);
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_log
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
