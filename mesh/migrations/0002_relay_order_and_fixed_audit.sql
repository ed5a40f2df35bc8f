-- The relay keeps the order of the events of one resource.
ALTER TABLE outbox ADD COLUMN resource_id text NOT NULL DEFAULT '';

-- What the audit log says stays said: the role of the service may add to it, no more.
DO $$
BEGIN
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM %I', 'kente_' || current_schema());
END
$$;
