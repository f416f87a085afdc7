"""What the simulated machines do: pure, seeded models without any protocol, stepped by an injected clock."""
