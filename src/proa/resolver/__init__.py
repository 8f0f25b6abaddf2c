"""Answer containers' name queries at 127.0.0.11, independent of the engine."""
