"""Alerts: metric rules, incidents from events, routing and runbooks."""
