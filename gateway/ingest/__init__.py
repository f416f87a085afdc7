"""Ingest: from the bus into the store, exactly once."""
