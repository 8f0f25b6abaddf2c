"""One thin function per system call the engine needs, with kernel names and no policy."""
