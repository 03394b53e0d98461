"""What travels: frames, messages, topics, publishing, and exactly-once ingest."""
