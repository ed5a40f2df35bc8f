-- The books of each tenant. Keys are numbers inside the database; callers know accounts and transactions by name and id.

-- One row a tenant: the head of everything that the tenant ever booked. Who books, or changes an account or a book,
-- locks this row first. So a tenant's postings are numbered in the order in which they are committed, without a gap.
CREATE TABLE journals (
    journal_key      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        text        NOT NULL UNIQUE,
    -- Of the newest entry.
    last_sequence    bigint      NOT NULL DEFAULT 0 CHECK (last_sequence >= 0),
    -- Number of transactions, each of which is a leaf of the tenant's tree.
    tree_size        bigint      NOT NULL DEFAULT 0 CHECK (tree_size >= 0),
    -- Roots of the full subtrees that make up the tree, from left to right, 32 bytes each.
    frontier         bytea       NOT NULL DEFAULT '',
    -- Of the newest transaction. Transactions take the later of this and the clock: a clock set back reorders nothing.
    last_create_time timestamptz NOT NULL DEFAULT '-infinity',
    -- No hold expires before. Null: none expires.
    next_expire_time timestamptz,
    -- So that what hangs on a journal must name the journal's own tenant.
    UNIQUE (journal_key, tenant_id)
)
WITH (fillfactor = 50);
ALTER TABLE journals ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON journals
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');
CREATE INDEX journals_by_expiry ON journals (next_expire_time) WHERE next_expire_time IS NOT NULL;

CREATE TABLE books (
    book_key    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal_key bigint      NOT NULL,
    tenant_id   text        NOT NULL,
    book_name   text        COLLATE "C" NOT NULL,
    -- What takes effect before is locked.
    closed_time timestamptz,
    create_time timestamptz NOT NULL,
    UNIQUE (tenant_id, book_name),
    UNIQUE (book_key, journal_key, tenant_id),
    FOREIGN KEY (journal_key, tenant_id) REFERENCES journals (journal_key, tenant_id)
);
ALTER TABLE books ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON books
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

CREATE TABLE accounts (
    account_key           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_key              bigint      NOT NULL,
    journal_key           bigint      NOT NULL,
    tenant_id             text        NOT NULL,
    -- Names are ASCII and are paged in byte order, whatever the database's own collation is.
    account_name          text        COLLATE "C" NOT NULL,
    account_number        text        COLLATE "C",
    type                  text        NOT NULL CHECK (type IN ('asset', 'liability', 'equity', 'income', 'expense')),
    currency              text        NOT NULL,
    scale                 smallint    NOT NULL CHECK (scale BETWEEN 0 AND 18),
    state                 text        NOT NULL DEFAULT 'opened' CHECK (state IN ('opened', 'frozen', 'closed')),
    display_name          text        NOT NULL,
    metadata              jsonb       NOT NULL DEFAULT '{}',
    -- On the normal side, counting what is held.
    min_balance_minor     bigint,
    max_balance_minor     bigint,
    credit_limit_minor    bigint      CHECK (credit_limit_minor >= 0),
    -- Sums of all posted entries. bigint itself refuses what does not fit.
    debits_minor          bigint      NOT NULL DEFAULT 0 CHECK (debits_minor >= 0),
    credits_minor         bigint      NOT NULL DEFAULT 0 CHECK (credits_minor >= 0),
    -- Sums of the entries of holds that are held still.
    pending_debits_minor  bigint      NOT NULL DEFAULT 0 CHECK (pending_debits_minor >= 0),
    pending_credits_minor bigint      NOT NULL DEFAULT 0 CHECK (pending_credits_minor >= 0),
    request_id            text        NOT NULL,
    create_time           timestamptz NOT NULL,
    update_time           timestamptz NOT NULL,
    UNIQUE (book_key, account_name),
    UNIQUE (book_key, account_number),
    FOREIGN KEY (book_key, journal_key, tenant_id) REFERENCES books (book_key, journal_key, tenant_id)
)
-- Every batch of postings writes a new version of the rows it touches. With room left in the page, and no index on what
-- changes, that version needs no index entry.
WITH (fillfactor = 60);
-- All accounts of a currency have one scale.
CREATE INDEX accounts_by_currency ON accounts (tenant_id, currency);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON accounts
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

REVOKE DELETE, TRUNCATE ON journals, books, accounts FROM kente_ledger;
REVOKE UPDATE ON journals, books, accounts FROM kente_ledger;
GRANT UPDATE (last_sequence, tree_size, frontier, last_create_time, next_expire_time) ON journals TO kente_ledger;
GRANT UPDATE (closed_time) ON books TO kente_ledger;
GRANT UPDATE (account_number, state, display_name, metadata, min_balance_minor, max_balance_minor, credit_limit_minor,
              debits_minor, credits_minor, pending_debits_minor, pending_credits_minor, update_time)
    ON accounts TO kente_ledger;
