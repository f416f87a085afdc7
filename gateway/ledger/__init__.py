"""The ledger: from outbox to store, each message exactly once. `steps` is what ingest hands to the store."""
