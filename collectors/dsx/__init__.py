"""DSX Exchange: the building system's points over MQTT."""
