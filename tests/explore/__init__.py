"""Tests of what looks at unknown Modbus devices."""
