-- Old rows are found by their age.
CREATE INDEX idempotency_by_age ON idempotency (create_time);
CREATE INDEX inbox_by_age ON inbox (create_time);
