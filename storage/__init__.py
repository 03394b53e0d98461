"""Where readings are kept: migrations, writer, reader, the embedded ClickHouse engine and its HTTP door."""
