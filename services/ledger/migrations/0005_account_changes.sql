-- What lets a process remember accounts from one batch of postings to the next. All that is booked shows in the head of
-- the journal; this counts whatever else becomes of accounts and books, whoever does it.
ALTER TABLE journals ADD COLUMN account_changes bigint NOT NULL DEFAULT 0;

-- For each row: these changes are few.
CREATE FUNCTION count_account_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE journals SET account_changes = account_changes + 1 WHERE journal_key = OLD.journal_key;
    RETURN NULL;
END
$$;
CREATE TRIGGER account_changes_counted
    AFTER UPDATE OF account_key, book_key, account_name, type, currency, state, min_balance_minor, max_balance_minor,
                    credit_limit_minor
    OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION count_account_change();
-- The service itself changes sums by what it books, and by nothing else.
CREATE TRIGGER corrections_counted
    AFTER UPDATE OF debits_minor, credits_minor, pending_debits_minor, pending_credits_minor
    ON accounts FOR EACH ROW WHEN (current_user <> 'kente_ledger') EXECUTE FUNCTION count_account_change();
CREATE TRIGGER book_changes_counted
    AFTER UPDATE OR DELETE ON books FOR EACH ROW EXECUTE FUNCTION count_account_change();
