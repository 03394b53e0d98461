"""The sustainability report: EU indicators, PUE and its kin, water, renewables and emissions of a month or a year."""
