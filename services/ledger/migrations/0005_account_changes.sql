-- What lets a process remember accounts from one batch of postings to the next. All that is booked shows in the head of
-- the journal; this shows that anything else became of accounts or books, whoever did it. It is no column of the journal:
-- whoever changes an account by hand has its row first, and would wait for the journal in a circle with a batch.
CREATE TABLE account_changes (
    journal_key bigint PRIMARY KEY,
    tenant_id   text   NOT NULL,
    -- The last transaction that changed any.
    changed_in  xid8   NOT NULL,
    -- Another after each such transaction, and never again what it was.
    token       uuid   NOT NULL,
    FOREIGN KEY (journal_key, tenant_id) REFERENCES journals (journal_key, tenant_id)
);
ALTER TABLE account_changes ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON account_changes
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON account_changes FROM kente_ledger;

CREATE FUNCTION tell_account_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO account_changes (journal_key, tenant_id, changed_in, token)
    VALUES (OLD.journal_key, OLD.tenant_id, pg_current_xact_id(), gen_random_uuid())
    ON CONFLICT (journal_key) DO UPDATE SET changed_in = excluded.changed_in, token = excluded.token
    -- Once is enough, of however many accounts.
    WHERE account_changes.changed_in <> excluded.changed_in;
    RETURN NULL;
END
$$;
-- Sums are not among them: each batch sees for itself whether they are what it was decided on.
CREATE TRIGGER account_changes_told
    AFTER UPDATE OF account_key, book_key, account_name, type, currency, state, min_balance_minor, max_balance_minor,
                    credit_limit_minor
    OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION tell_account_change();
CREATE TRIGGER book_changes_told
    AFTER UPDATE OR DELETE ON books FOR EACH ROW EXECUTE FUNCTION tell_account_change();
-- Also while a session takes itself for the copier of another database.
ALTER TABLE accounts ENABLE ALWAYS TRIGGER account_changes_told;
ALTER TABLE books ENABLE ALWAYS TRIGGER book_changes_told;
