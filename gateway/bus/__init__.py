"""The bus: MQTT. `topics` is the grammar, `client` the connection, `broker` the embedded broker. Only this package imports paho."""
