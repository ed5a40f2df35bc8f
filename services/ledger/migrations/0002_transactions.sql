-- What was booked, what was refused, and what is held.

CREATE TABLE transactions (
    journal_key        bigint      NOT NULL,
    -- Its place among all of the tenant, from 0: its leaf in the tree.
    leaf_index         bigint      NOT NULL CHECK (leaf_index >= 0),
    book_key           bigint      NOT NULL,
    tenant_id          text        NOT NULL,
    transaction_id     text        COLLATE "C" NOT NULL,
    kind               text        NOT NULL
                       CHECK (kind IN ('posting', 'hold', 'hold_posting', 'hold_void', 'hold_expiry', 'reversal')),
    -- Of its first entry, or of the next there will be when it has none.
    first_sequence     bigint      NOT NULL CHECK (first_sequence > 0),
    entry_count        integer     NOT NULL CHECK (entry_count >= 0),
    description        text        NOT NULL,
    source_id          text        NOT NULL,
    metadata           jsonb       NOT NULL,
    -- Of the hold that it ends, or of the transaction that it reverses.
    related_leaf_index bigint,
    -- As the caller gave it. Null: create_time.
    effective_time     timestamptz,
    -- Of a hold.
    expire_time        timestamptz,
    create_time        timestamptz NOT NULL,
    leaf_hash          bytea       NOT NULL,
    -- What was asked for and what was answered, as bytes, for whoever asks again. Null: nobody asked for it.
    request            bytea,
    answer             bytea,
    PRIMARY KEY (journal_key, leaf_index),
    -- The id first, which finds one row of all tenants: an index that begins with the tenant is half as large again.
    UNIQUE (transaction_id, journal_key),
    CONSTRAINT transaction_relates CHECK ((related_leaf_index IS NULL) = (kind IN ('posting', 'hold'))),
    CONSTRAINT transaction_has_entries CHECK (
        CASE WHEN kind IN ('hold_void', 'hold_expiry') THEN entry_count = 0 ELSE entry_count >= 2 END)
);
CREATE INDEX transactions_by_source ON transactions (tenant_id, source_id, leaf_index) WHERE source_id <> '';
CREATE INDEX transactions_by_related ON transactions (journal_key, related_leaf_index)
    WHERE related_leaf_index IS NOT NULL;
CREATE INDEX transactions_by_metadata ON transactions USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}';
ALTER TABLE transactions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON transactions
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- By month of booking, so that old months can be detached. No foreign keys: they would cost two look-ups a row. The
-- triggers below check the same for whole statements.
CREATE TABLE entries (
    journal_key         bigint      NOT NULL,
    -- Position among all entries of the tenant: gapless and rising from 1.
    sequence            bigint      NOT NULL,
    -- Of the transaction it belongs to.
    leaf_index          bigint      NOT NULL,
    account_key         bigint      NOT NULL,
    tenant_id           text        NOT NULL,
    side                text        NOT NULL CHECK (side IN ('debit', 'credit')),
    -- Held and not posted: it changes no balance.
    pending             boolean     NOT NULL,
    amount_minor        bigint      NOT NULL CHECK (amount_minor > 0),
    -- Posted balance on the account's normal side.
    balance_after_minor bigint      NOT NULL,
    -- As the caller gave it. Null: create_time.
    effective_time      timestamptz,
    create_time         timestamptz NOT NULL,
    PRIMARY KEY (journal_key, sequence, create_time)
) PARTITION BY RANGE (create_time);
CREATE INDEX entries_by_account ON entries (account_key, sequence);
-- Those whose time of effect is their own. What they change in a balance of the past is found by this alone.
CREATE INDEX entries_by_own_effect ON entries (account_key, sequence) WHERE effective_time IS NOT NULL;
ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON entries
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- Makes the partition of a month, unless it is there. The service books into it; only the owner can make tables.
CREATE FUNCTION ensure_entries_partition(moment timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    month_start timestamp := date_trunc('month', moment AT TIME ZONE 'UTC');
    partition   text := format('entries_%s', to_char(month_start, 'YYYY_MM'));
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Of several processes that find it missing, one makes it. Attaching takes this lock anyway; after it, unlike after
    -- an advisory one, the look below sees what another made meanwhile.
    LOCK TABLE entries IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Attaching locks out nobody who reads or books, as creating it in place would.
    EXECUTE format('CREATE TABLE %I (LIKE entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('REVOKE ALL ON %I FROM kente_ledger', partition);
    EXECUTE format('ALTER TABLE entries ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition,
                   month_start AT TIME ZONE 'UTC', (month_start + interval '1 month') AT TIME ZONE 'UTC');
END
$$;
REVOKE ALL ON FUNCTION ensure_entries_partition(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_entries_partition(timestamptz) TO kente_ledger;

-- What became of each hold.
CREATE TABLE holds (
    journal_key         bigint      NOT NULL,
    -- Of the transaction that holds.
    leaf_index          bigint      NOT NULL,
    tenant_id           text        NOT NULL,
    state               text        NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'posted', 'voided', 'expired')),
    expire_time         timestamptz,
    -- Of the transaction that ended it.
    ended_by_leaf_index bigint,
    PRIMARY KEY (journal_key, leaf_index),
    CHECK ((state = 'held') = (ended_by_leaf_index IS NULL))
);
CREATE INDEX holds_by_expiry ON holds (journal_key, expire_time) WHERE state = 'held';
ALTER TABLE holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON holds
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- Which entries were reversed: each can be once.
CREATE TABLE reversed_entries (
    journal_key         bigint NOT NULL,
    sequence            bigint NOT NULL,
    -- Of the transaction it belongs to.
    leaf_index          bigint NOT NULL,
    tenant_id           text   NOT NULL,
    -- Of the reversal.
    reversal_leaf_index bigint NOT NULL,
    PRIMARY KEY (journal_key, sequence)
);
CREATE INDEX reversed_entries_by_transaction ON reversed_entries (journal_key, leaf_index);
ALTER TABLE reversed_entries ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON reversed_entries
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- What was refused stays refused: the same id gets the same answer for ever.
CREATE TABLE refusals (
    tenant_id      text        NOT NULL,
    transaction_id text        COLLATE "C" NOT NULL,
    request        bytea       NOT NULL,
    -- google.rpc.Status.
    status         bytea       NOT NULL,
    create_time    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, transaction_id)
);
ALTER TABLE refusals ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON refusals
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- What each request_id was used for: it must not be used for anything else.
CREATE TABLE requests (
    tenant_id    text        NOT NULL,
    request_id   uuid        NOT NULL,
    request_hash bytea       NOT NULL,
    create_time  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, request_id)
);
ALTER TABLE requests ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON requests
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- The second line behind the service: whatever it writes, each statement leaves balanced transactions of one tenant.
-- The functions run as the owner of the tables, so that they see all rows whatever kente.tenant says. They look up by
-- index what was added, however little the planner knows of a table that grows by every statement.

CREATE FUNCTION check_entries() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    fault text;
BEGIN
    -- An entry without its transaction, or of another tenant or time, is not counted, so it is refused too. With the
    -- time of its transaction, its place can't be taken twice: the primary key has the time in it.
    SELECT format('transaction at leaf %s has entries that are missing, surplus or of another book', added.leaf_index)
    INTO fault
    FROM (SELECT journal_key, leaf_index, tenant_id, create_time, count(*) AS entry_count, min(sequence) AS first_sequence,
                 max(sequence) AS last_sequence
          FROM added GROUP BY journal_key, leaf_index, tenant_id, create_time) AS added
    LEFT JOIN transactions USING (journal_key, leaf_index, tenant_id, create_time)
    WHERE transactions.entry_count IS DISTINCT FROM added.entry_count
       OR transactions.first_sequence IS DISTINCT FROM added.first_sequence
       OR added.last_sequence - added.first_sequence + 1 <> added.entry_count
    LIMIT 1;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION '%', fault USING ERRCODE = 'check_violation', CONSTRAINT = 'transaction_complete';
    END IF;
    SELECT format('transaction at leaf %s is not balanced in %s', leaf_index, currency)
    INTO fault
    FROM (
        SELECT added.journal_key, added.leaf_index, accounts.currency,
               -- numeric, because sums of bigint legs may pass bigint before they cancel out
               sum(CASE added.side WHEN 'debit' THEN added.amount_minor::numeric
                                   ELSE -added.amount_minor::numeric END) AS difference_minor
        FROM added
        LEFT JOIN accounts ON accounts.account_key = added.account_key AND accounts.journal_key = added.journal_key
        GROUP BY added.journal_key, added.leaf_index, accounts.currency
    ) AS sums
    WHERE difference_minor <> 0 OR currency IS NULL
    LIMIT 1;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION '%', fault USING ERRCODE = 'check_violation', CONSTRAINT = 'transaction_balanced';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER entries_balanced AFTER INSERT ON entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_entries();

CREATE FUNCTION check_transactions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    -- Entries come with their transaction in one statement. Those of all new transactions lie side by side.
    IF EXISTS (
        SELECT FROM (SELECT journal_key, min(first_sequence) AS first_sequence, sum(entry_count) AS entry_count,
                            max(first_sequence + entry_count) AS end_sequence, min(create_time) AS create_time
                     FROM added GROUP BY journal_key) AS book
        WHERE (SELECT count(*) FROM entries
               WHERE entries.journal_key = book.journal_key
                 AND entries.sequence >= book.first_sequence AND entries.sequence < book.end_sequence
                 AND entries.create_time >= book.create_time) <> book.entry_count
    ) THEN
        RAISE EXCEPTION 'a transaction does not have all of its entries'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transaction_complete';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER transactions_complete AFTER INSERT ON transactions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_transactions();

-- The service adds to the books and never changes what is in them.
REVOKE UPDATE, DELETE, TRUNCATE ON transactions, entries, reversed_entries, refusals, requests FROM kente_ledger;
REVOKE UPDATE, DELETE, TRUNCATE ON holds FROM kente_ledger;
GRANT UPDATE (state, ended_by_leaf_index) ON holds TO kente_ledger;
