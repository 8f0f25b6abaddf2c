"""Hold one container's streams, log, execs and exit record, independent of the engine."""
