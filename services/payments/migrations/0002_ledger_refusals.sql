-- The ledger remembers a refusal for ever by the transaction id. What it refused is tried again under another id.

ALTER TABLE payments
    -- How many ids were refused for ever. The id of the next try is made of it.
    ADD COLUMN ledger_refusals integer NOT NULL DEFAULT 0 CHECK (ledger_refusals >= 0),
    -- Why the last try was refused.
    ADD COLUMN ledger_refusal_reason text NOT NULL DEFAULT ''
        CHECK (ledger_refusal_reason = '' OR ledger_state = 'QUEUED');
ALTER TABLE refunds
    ADD COLUMN ledger_refusals integer NOT NULL DEFAULT 0 CHECK (ledger_refusals >= 0),
    ADD COLUMN ledger_refusal_reason text NOT NULL DEFAULT ''
        CHECK (ledger_refusal_reason = '' OR ledger_state = 'QUEUED');
-- What an operator looks for.
CREATE INDEX payments_refused ON payments (tenant_id, payment_id DESC) WHERE ledger_refusal_reason <> '';
CREATE INDEX refunds_refused ON refunds (tenant_id, refund_id DESC) WHERE ledger_refusal_reason <> '';

-- One id after the other, and only while the posting is open: else two of them could be booked.
CREATE FUNCTION keep_ledger_refusals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% can not go from % to % refusals of the ledger', TG_TABLE_NAME, OLD.ledger_refusals,
        NEW.ledger_refusals USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER keep_ledger_refusals BEFORE UPDATE ON payments
    FOR EACH ROW WHEN (NEW.ledger_refusals <> OLD.ledger_refusals AND NOT (NEW.ledger_refusals = OLD.ledger_refusals + 1
        AND OLD.ledger_state = 'QUEUED' AND NEW.ledger_state = 'QUEUED'))
    EXECUTE FUNCTION keep_ledger_refusals();
CREATE TRIGGER keep_ledger_refusals BEFORE UPDATE ON refunds
    FOR EACH ROW WHEN (NEW.ledger_refusals <> OLD.ledger_refusals AND NOT (NEW.ledger_refusals = OLD.ledger_refusals + 1
        AND OLD.ledger_state = 'QUEUED' AND NEW.ledger_state = 'QUEUED'))
    EXECUTE FUNCTION keep_ledger_refusals();
