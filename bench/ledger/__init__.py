"""The ledger under load, beside baselines that are measured in the same run: `python -m bench.ledger`."""
