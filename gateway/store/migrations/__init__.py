"""The store's migrations, shipped with the package and run by `gateway.store` itself."""
