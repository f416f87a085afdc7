"""The first hour with a device: point tables, browsing and reading a point before anything is configured."""
