"""Configuration: one YAML file, the environment, and secrets from environment or files.

`load.load_config` reads and checks it, `resolve.resolve` makes the plan for collect, `secrets.resolve_secret` reads a secret.
"""
