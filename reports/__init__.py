"""Reports: pure Polars functions over what is stored, and their rendering."""
