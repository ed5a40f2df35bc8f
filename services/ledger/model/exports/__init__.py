"""Forms in which entries and reports leave the ledger. Pure: rows in, text or cells out."""
