"""Modbus TCP: meters, heat meters and cooling units, by register maps or SunSpec."""
