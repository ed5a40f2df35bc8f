-- What reads need beside the keys. docs/ledger-queries.md shows what each is worth.

-- By time of effect, so that a statement finds the next lines in order, and a balance only what it must correct.
DROP INDEX entries_by_own_effect;
CREATE INDEX entries_by_own_effect ON entries (account_key, effective_time, sequence)
    WHERE effective_time IS NOT NULL;
-- What was held at a time that is past.
CREATE INDEX entries_by_hold ON entries (account_key, sequence) WHERE pending;
-- Nearly all transactions are postings: who asks for another kind would read them all.
CREATE INDEX transactions_by_kind ON transactions (journal_key, kind, leaf_index) WHERE kind <> 'posting';

-- The next transactions of the current tenant with all of these metadata. Row-level security keeps the index of metadata
-- out of the service's own statements, because its operator could tell of other tenants' rows; here the owner looks,
-- and gives away only the tenant's own.
CREATE FUNCTION leaves_with_metadata(wanted jsonb, after_leaf_index bigint, until_leaf_index bigint, most integer)
    RETURNS SETOF bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT SET enable_bitmapscan = on AS $$
    SELECT leaf_index FROM transactions
    WHERE metadata @> wanted AND metadata <> '{}' AND tenant_id = current_setting('kente.tenant', true)
      AND leaf_index > after_leaf_index AND leaf_index < until_leaf_index
    ORDER BY leaf_index LIMIT most
$$;
REVOKE ALL ON FUNCTION leaves_with_metadata(jsonb, bigint, bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION leaves_with_metadata(jsonb, bigint, bigint, integer) TO kente_ledger;
