"""What is measured, side by side with its yardstick: `make bench-NAME` runs `benchmarks/NAME.py`."""
