"""Redfish: CDUs, cooling loops, power shelves, PDUs, servers and switches."""
