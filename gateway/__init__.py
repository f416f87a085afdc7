"""The Guantong gateway: collect, bus, ingest, store and serve."""

__version__ = "0.1.0"
