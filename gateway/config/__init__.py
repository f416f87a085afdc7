"""Configuration: one YAML file, the environment, and secrets from environment or files."""
