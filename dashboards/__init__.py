"""Grafana dashboards as code: typed builders over the catalogue, rendered JSON, publishing, preview."""
