"""The role `serve`: REST, server-sent events, health and metrics. `role.make_serve` makes it from a configuration."""
