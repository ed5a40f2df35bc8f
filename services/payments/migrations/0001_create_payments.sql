-- Payments, what was tried with providers, refunds, and callbacks.
-- The guards of money are here too, so that no fault of the code can break them.

CREATE TABLE payments (
    payment_id            text        PRIMARY KEY,
    tenant_id             text        NOT NULL,
    request_id            text        NOT NULL,
    request_fingerprint   bytea       NOT NULL,
    state                 text        NOT NULL CHECK (state IN (
        'CREATED', 'PROCESSING', 'ACTION_REQUIRED', 'AUTHORIZED', 'SUCCEEDED', 'FAILED', 'CANCELED', 'EXPIRED')),
    currency              text        NOT NULL,
    amount_minor          bigint      NOT NULL CHECK (amount_minor > 0),
    authorized_minor      bigint      NOT NULL CHECK (authorized_minor BETWEEN 0 AND amount_minor),
    captured_minor        bigint      NOT NULL CHECK (captured_minor BETWEEN 0 AND authorized_minor),
    -- Given back, or set aside for refunds under way.
    refunded_minor        bigint      NOT NULL CHECK (refunded_minor BETWEEN 0 AND captured_minor),
    -- Captured, or set aside for a capture under way.
    capture_minor         bigint      NOT NULL CHECK (capture_minor BETWEEN captured_minor AND authorized_minor),
    -- Personal data: exactly one of the two.
    msisdn                text,
    card_token            text,
    operator              text        NOT NULL,
    return_url            text        NOT NULL,
    payer_display_name    text        NOT NULL,
    payer_email           text        NOT NULL,
    description           text        NOT NULL,
    merchant_reference    text        NOT NULL,
    capture_method        text        NOT NULL CHECK (capture_method IN ('AUTOMATIC', 'MANUAL')),
    route                 jsonb       NOT NULL,
    next_action           jsonb,
    failure               jsonb,
    ledger_state          text        NOT NULL CHECK (ledger_state IN ('UNSPECIFIED', 'QUEUED', 'POSTED')),
    ledger_transaction_id text        NOT NULL,
    anomaly               text CHECK (anomaly IN ('MONEY_AFTER_END', 'END_AFTER_SUCCESS', 'AMOUNT_MISMATCH')),
    held                  boolean     NOT NULL,
    create_time           timestamptz NOT NULL,
    update_time           timestamptz NOT NULL,
    version               bigint      NOT NULL CHECK (version > 0),
    UNIQUE (tenant_id, request_id),
    CHECK ((msisdn IS NULL) <> (card_token IS NULL)),
    CHECK ((state = 'SUCCEEDED') = (captured_minor > 0)),
    CHECK ((state = 'SUCCEEDED') = (ledger_state <> 'UNSPECIFIED'))
);
CREATE INDEX payments_by_tenant ON payments (tenant_id, payment_id DESC);
CREATE INDEX payments_by_state ON payments (tenant_id, state, payment_id DESC);
CREATE INDEX payments_by_reference ON payments (tenant_id, merchant_reference, payment_id DESC)
    WHERE merchant_reference <> '';
-- What an operator looks for.
CREATE INDEX payments_with_anomaly ON payments (tenant_id, payment_id DESC) WHERE anomaly IS NOT NULL;

-- A terminal state is never left, and a version is never written twice.
CREATE FUNCTION keep_terminal_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('SUCCEEDED', 'FAILED', 'CANCELED', 'EXPIRED') AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'payment % is % and can not become %', OLD.payment_id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.version <= OLD.version THEN
        RAISE EXCEPTION 'payment % has version % already', OLD.payment_id, OLD.version
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_terminal BEFORE UPDATE ON payments
    FOR EACH ROW EXECUTE FUNCTION keep_terminal_payment();

-- Who watches a payment is told of every version once it is committed.
CREATE FUNCTION tell_payment_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('kente_payments_changed', NEW.payment_id);
    RETURN NULL;
END $$;
CREATE TRIGGER tell_changed AFTER INSERT OR UPDATE ON payments
    FOR EACH ROW EXECUTE FUNCTION tell_payment_changed();

CREATE TABLE attempts (
    attempt_id     text        PRIMARY KEY,
    tenant_id      text        NOT NULL,
    payment_id     text        NOT NULL REFERENCES payments,
    attempt_key    text        NOT NULL UNIQUE,
    state          text        NOT NULL CHECK (state IN (
        'STARTED', 'PENDING', 'UNKNOWN', 'SUCCEEDED', 'FAILED', 'NOT_SENT')),
    provider       text        NOT NULL,
    connection_id  text        NOT NULL,
    reference      text        NOT NULL,
    fault          text        NOT NULL,
    failure        jsonb,
    send_time      timestamptz NOT NULL,
    delay_reported boolean     NOT NULL,
    create_time    timestamptz NOT NULL,
    update_time    timestamptz NOT NULL,
    UNIQUE (payment_id, connection_id)
);
-- No other provider is tried while one may have the payment, nor after one did it.
CREATE UNIQUE INDEX attempts_one_live ON attempts (payment_id)
    WHERE state IN ('STARTED', 'PENDING', 'UNKNOWN', 'SUCCEEDED');
CREATE INDEX attempts_by_reference ON attempts (connection_id, reference) WHERE reference <> '';

CREATE TABLE adjustments (
    adjustment_id       text        PRIMARY KEY,
    tenant_id           text        NOT NULL,
    payment_id          text        NOT NULL REFERENCES payments,
    attempt_id          text        NOT NULL REFERENCES attempts,
    request_id          text        NOT NULL,
    request_fingerprint bytea       NOT NULL,
    kind                text        NOT NULL CHECK (kind IN ('CAPTURE', 'CANCEL')),
    currency            text        NOT NULL,
    amount_minor        bigint      NOT NULL CHECK (amount_minor > 0),
    state               text        NOT NULL CHECK (state IN (
        'STARTED', 'PENDING', 'UNKNOWN', 'SUCCEEDED', 'FAILED', 'NOT_SENT')),
    provider            text        NOT NULL,
    connection_id       text        NOT NULL,
    reference           text        NOT NULL,
    fault               text        NOT NULL,
    failure             jsonb,
    send_time           timestamptz NOT NULL,
    delay_reported      boolean     NOT NULL,
    create_time         timestamptz NOT NULL,
    update_time         timestamptz NOT NULL,
    UNIQUE (tenant_id, kind, request_id)
);
-- A capture and a cancellation, or two captures, never race at the provider.
CREATE UNIQUE INDEX adjustments_one_open ON adjustments (payment_id)
    WHERE state IN ('STARTED', 'PENDING', 'UNKNOWN', 'NOT_SENT');

CREATE TABLE refunds (
    refund_id             text        PRIMARY KEY,
    tenant_id             text        NOT NULL,
    payment_id            text        NOT NULL REFERENCES payments,
    request_id            text        NOT NULL,
    request_fingerprint   bytea       NOT NULL,
    attempt_key           text        NOT NULL UNIQUE,
    state                 text        NOT NULL CHECK (state IN ('CREATED', 'PROCESSING', 'SUCCEEDED', 'FAILED')),
    currency              text        NOT NULL,
    amount_minor          bigint      NOT NULL CHECK (amount_minor > 0),
    description           text        NOT NULL,
    call_state            text        NOT NULL CHECK (call_state IN (
        'STARTED', 'PENDING', 'UNKNOWN', 'SUCCEEDED', 'FAILED', 'NOT_SENT')),
    provider              text        NOT NULL,
    connection_id         text        NOT NULL,
    reference             text        NOT NULL,
    fault                 text        NOT NULL,
    failure               jsonb,
    send_time             timestamptz NOT NULL,
    delay_reported        boolean     NOT NULL,
    ledger_state          text        NOT NULL CHECK (ledger_state IN ('UNSPECIFIED', 'QUEUED', 'POSTED')),
    ledger_transaction_id text        NOT NULL,
    anomaly               text CHECK (anomaly IN ('MONEY_AFTER_END', 'END_AFTER_SUCCESS', 'AMOUNT_MISMATCH')),
    create_time           timestamptz NOT NULL,
    update_time           timestamptz NOT NULL,
    UNIQUE (tenant_id, request_id),
    CHECK ((state = 'SUCCEEDED') = (ledger_state <> 'UNSPECIFIED'))
);
CREATE INDEX refunds_by_payment ON refunds (payment_id, refund_id DESC);
CREATE INDEX refunds_by_reference ON refunds (connection_id, reference) WHERE reference <> '';

-- A second guard beside payments.refunded_minor: it adds up the refunds themselves. The payment's row is locked by
-- whoever writes a refund, so two can't both find room.
CREATE FUNCTION check_refunds_within_capture() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    captured bigint;
    refunded numeric;
BEGIN
    SELECT captured_minor INTO captured FROM payments WHERE payment_id = NEW.payment_id FOR UPDATE;
    SELECT coalesce(sum(amount_minor), 0) INTO refunded
        FROM refunds WHERE payment_id = NEW.payment_id AND state <> 'FAILED';
    IF refunded > captured THEN
        RAISE EXCEPTION 'refunds of payment % would exceed its capture', NEW.payment_id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER within_capture AFTER INSERT OR UPDATE ON refunds
    FOR EACH ROW EXECUTE FUNCTION check_refunds_within_capture();

-- What providers said that does not fit what we know. Kept for people to decide; never acted on by itself.
CREATE TABLE anomalies (
    anomaly_id            text        PRIMARY KEY,
    tenant_id             text        NOT NULL,
    payment_id            text        NOT NULL REFERENCES payments,
    -- The attempt, refund or adjustment that it is about.
    subject_id            text        NOT NULL,
    kind                  text        NOT NULL CHECK (kind IN (
        'MONEY_AFTER_END', 'END_AFTER_SUCCESS', 'AMOUNT_MISMATCH')),
    reported_state        text        NOT NULL,
    reported_amount_minor bigint,
    reported_currency     text,
    reference             text        NOT NULL,
    create_time           timestamptz NOT NULL
);
-- The same thing said again is the same anomaly.
CREATE UNIQUE INDEX anomalies_once ON anomalies (
    subject_id, kind, reported_state, coalesce(reported_amount_minor, -1), coalesce(reported_currency, ''));

-- Callbacks as they came, and what the adapter read in them. Their key is the memory against replays.
CREATE TABLE webhooks (
    webhook_id    text        PRIMARY KEY,
    tenant_id     text        NOT NULL,
    provider      text        NOT NULL,
    connection_id text        NOT NULL,
    event_id      text        NOT NULL,
    -- One event can report on several operations.
    position      integer     NOT NULL,
    state         text        NOT NULL CHECK (state IN ('RECEIVED', 'PROCESSED', 'UNMATCHED')),
    operation     text        NOT NULL,
    attempt_key   text        NOT NULL,
    reference     text        NOT NULL,
    outcome       jsonb,
    -- Raw, so that what the provider said can be read again. May hold personal data.
    headers       jsonb       NOT NULL,
    body          bytea       NOT NULL,
    receive_time  timestamptz NOT NULL,
    process_time  timestamptz,
    UNIQUE (connection_id, event_id, position)
);
CREATE INDEX webhooks_unmatched ON webhooks (tenant_id, webhook_id) WHERE state = 'UNMATCHED';

ALTER TABLE payments ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON payments
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
ALTER TABLE attempts ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON attempts
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
ALTER TABLE adjustments ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON adjustments
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
ALTER TABLE refunds ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON refunds
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
ALTER TABLE anomalies ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON anomalies
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON webhooks
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
