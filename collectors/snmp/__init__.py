"""SNMP: rack PDUs and UPSs."""
