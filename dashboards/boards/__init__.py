"""One module for each dashboard; `dashboards.rendering` lists them."""
