"""The engine's records as the JSON of the Docker Engine API, and back: pure functions, no engine, no sockets."""
