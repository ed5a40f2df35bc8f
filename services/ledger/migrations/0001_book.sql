-- The book of each tenant. Keys are numbers inside the database; callers know accounts and transactions by name and id.

CREATE TABLE books (
    book_key         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        text        NOT NULL UNIQUE,
    -- Sequence of the newest entry. This row is the last one that a posting locks, so entries are numbered in the
    -- order in which they are committed, without a gap.
    last_sequence    bigint      NOT NULL DEFAULT 0 CHECK (last_sequence >= 0),
    -- Time of the newest entry. Entries take the later of this and the clock: a clock set back reorders nothing.
    last_create_time timestamptz NOT NULL DEFAULT now(),
    -- So that what hangs on a book must name the book's own tenant.
    UNIQUE (book_key, tenant_id)
);
ALTER TABLE books ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON books
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

CREATE TABLE accounts (
    account_key   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_key      bigint      NOT NULL,
    tenant_id     text        NOT NULL,
    -- Names are ASCII and are paged in byte order, whatever the database's own collation is.
    account_name  text        COLLATE "C" NOT NULL,
    type          text        NOT NULL CHECK (type IN ('asset', 'liability', 'equity', 'income', 'expense')),
    currency      text        NOT NULL,
    state         text        NOT NULL DEFAULT 'opened' CHECK (state IN ('opened', 'frozen', 'closed')),
    display_name  text        NOT NULL,
    -- Sums of all entries. bigint itself refuses what does not fit.
    debits_minor  bigint      NOT NULL DEFAULT 0 CHECK (debits_minor >= 0),
    credits_minor bigint      NOT NULL DEFAULT 0 CHECK (credits_minor >= 0),
    request_id    text        NOT NULL,
    create_time   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (tenant_id, account_name),
    UNIQUE (tenant_id, request_id),
    FOREIGN KEY (book_key, tenant_id) REFERENCES books (book_key, tenant_id)
)
-- Every posting writes a new version of the rows it touches. With room left in the page, and no index on what changes,
-- that version needs no index entry.
WITH (fillfactor = 60);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON accounts
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

CREATE TABLE transactions (
    book_key       bigint      NOT NULL,
    -- Of its entries. Both are stored, because behind row-level security only a plain comparison can use an index.
    first_sequence bigint      NOT NULL CHECK (first_sequence > 0),
    last_sequence  bigint      NOT NULL,
    tenant_id      text        NOT NULL,
    transaction_id text        COLLATE "C" NOT NULL,
    description    text        NOT NULL,
    source_id      text        NOT NULL,
    -- As the caller gave it. Null: create_time.
    effective_time timestamptz,
    create_time    timestamptz NOT NULL,
    PRIMARY KEY (book_key, first_sequence),
    UNIQUE (tenant_id, transaction_id),
    FOREIGN KEY (book_key, tenant_id) REFERENCES books (book_key, tenant_id),
    CONSTRAINT transaction_has_two_entries CHECK (last_sequence > first_sequence)
);
CREATE INDEX transactions_by_source ON transactions (tenant_id, source_id, first_sequence) WHERE source_id <> '';
ALTER TABLE transactions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON transactions
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- No foreign keys: they would cost two look-ups a row. The triggers below check the same for whole statements.
CREATE TABLE entries (
    book_key            bigint      NOT NULL,
    sequence            bigint      NOT NULL,
    -- Of the transaction it belongs to.
    first_sequence      bigint      NOT NULL,
    account_key         bigint      NOT NULL,
    tenant_id           text        NOT NULL,
    side                text        NOT NULL CHECK (side IN ('debit', 'credit')),
    amount_minor        bigint      NOT NULL CHECK (amount_minor > 0),
    -- On the account's normal side.
    balance_after_minor bigint      NOT NULL,
    create_time         timestamptz NOT NULL,
    PRIMARY KEY (book_key, sequence)
);
CREATE INDEX entries_by_account ON entries (account_key, sequence);
ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON entries
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- The second line behind the service: whatever it writes, a commit leaves balanced transactions of one tenant. The
-- functions run as the owner of the tables, so that they see all rows whatever kente.tenant says.

CREATE FUNCTION check_transaction_balanced() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    counted bigint;
    fault   text;
BEGIN
    -- An entry on an account of another book is not counted, so it is refused too.
    SELECT sum(side_count), string_agg(DISTINCT currency, ', ') FILTER (WHERE difference_minor <> 0)
    INTO counted, fault
    FROM (
        SELECT accounts.currency,
               count(*) AS side_count,
               -- numeric, because sums of bigint legs may pass bigint before they cancel out
               sum(CASE entries.side WHEN 'debit' THEN entries.amount_minor::numeric
                                     ELSE -entries.amount_minor::numeric END) AS difference_minor
        FROM entries
        JOIN accounts ON accounts.account_key = entries.account_key AND accounts.book_key = entries.book_key
        WHERE entries.book_key = NEW.book_key
          AND entries.first_sequence = NEW.first_sequence
          AND entries.sequence BETWEEN NEW.first_sequence AND NEW.last_sequence
        GROUP BY accounts.currency
    ) AS sums;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'transaction % is not balanced in %', NEW.transaction_id, fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transaction_balanced';
    END IF;
    IF counted IS DISTINCT FROM NEW.last_sequence - NEW.first_sequence + 1 THEN
        RAISE EXCEPTION 'transaction % does not have all of its entries', NEW.transaction_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transaction_complete';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER transaction_balanced AFTER INSERT ON transactions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transaction_balanced();

-- The places of a transaction are all taken once it is committed, so nothing can be added to it later.
CREATE FUNCTION check_entries_in_transaction() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added
        LEFT JOIN transactions USING (book_key, first_sequence, tenant_id)
        WHERE transactions.transaction_id IS NULL
           OR added.sequence NOT BETWEEN transactions.first_sequence AND transactions.last_sequence
    ) THEN
        RAISE EXCEPTION 'an entry lies outside of its transaction'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entry_in_transaction';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER entry_in_transaction AFTER INSERT ON entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_entries_in_transaction();

-- The service adds to the book and never changes what is in it. Of an account, only the sums and the state can change.
REVOKE UPDATE, DELETE, TRUNCATE ON transactions, entries FROM kente_ledger;
REVOKE DELETE, TRUNCATE ON books, accounts FROM kente_ledger;
REVOKE UPDATE ON books, accounts FROM kente_ledger;
GRANT UPDATE (last_sequence, last_create_time) ON books TO kente_ledger;
GRANT UPDATE (state, debits_minor, credits_minor) ON accounts TO kente_ledger;
