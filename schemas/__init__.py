"""The common data-interchange schema: readings, messages, devices, signals, units, quality, profiles."""
