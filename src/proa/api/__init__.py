"""The engine service: the Docker Engine API on a socket."""
