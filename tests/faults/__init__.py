"""Faults: what is promised under each of them, and the campaign that tries it."""
