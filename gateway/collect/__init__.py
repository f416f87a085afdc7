"""Collect: adapters, normaliser, outbox and sender, in one process."""
