"""The physics behind the readings. Nothing here knows of dialects, MQTT or the network."""
