-- What proves that nothing in the books was changed. docs/ledger-proofs.md tells the forms.

-- The state of a tenant's tree after each batch of postings, signed.
CREATE TABLE checkpoints (
    journal_key   bigint      NOT NULL,
    tree_size     bigint      NOT NULL CHECK (tree_size > 0),
    tenant_id     text        NOT NULL,
    -- Of the newest entry then.
    last_sequence bigint      NOT NULL,
    root_hash     bytea       NOT NULL,
    -- The signed note, as it is shown.
    note          text        NOT NULL,
    -- Of all transactions of the batch.
    create_time   timestamptz NOT NULL,
    -- The events that announce the transactions of the batch.
    event_ids     text[]      NOT NULL,
    PRIMARY KEY (journal_key, tree_size)
);
CREATE INDEX checkpoints_by_time ON checkpoints (journal_key, create_time);
ALTER TABLE checkpoints ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON checkpoints
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- Roots of full subtrees of 256, 65,536, ... leaves; what lies between is computed from those below.
CREATE TABLE tree_nodes (
    journal_key bigint   NOT NULL,
    -- Height above the leaves: 8, 16, ...
    level       smallint NOT NULL CHECK (level > 0 AND level % 8 = 0),
    node_index  bigint   NOT NULL,
    tenant_id   text     NOT NULL,
    hash        bytea    NOT NULL,
    PRIMARY KEY (journal_key, level, node_index)
);
ALTER TABLE tree_nodes ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tree_nodes
    USING (tenant_id = current_setting('kente.tenant', true) OR current_setting('kente.tenant', true) = '*');

-- Public keys that checkpoints were ever signed with. They are no tenant's.
CREATE TABLE checkpoint_keys (
    verifier_key text        PRIMARY KEY,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp()
);

REVOKE UPDATE, DELETE, TRUNCATE ON checkpoints, tree_nodes, checkpoint_keys FROM kente_ledger;
