"""One thin function per system call the engine needs, with kernel names and no policy.

Topic modules: `mount`, `process`, `files`, `capability`, `seccomp`, `bpf`, `keyring`, `inotify`, `sched`, `sockets`,
`tty`, `landlock`, `allocator`. Every function raises OSError (or the subclass Python picks for the errno) whose
`strerror` starts with the name of the system call and whose `filename` is the path, if there is one. The package itself
imports nothing.
"""
