"""The proa command line, a client of the engine's API."""
