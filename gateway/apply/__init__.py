"""Another configuration while the gateway runs: what would change, how the collector is told, and what was applied before."""
