"""Backup and restore: configuration, profiles, certificates and keys, and the store, in one archive. Never the outbox."""
