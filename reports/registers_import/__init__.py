"""From a register's CSV to rows that may be stored, or to sentences about what is wrong with it."""
