"""Copy files out of and into the root file system of a container, by a process that has entered it.

The engine (`visits`) has a worker forked for each copy; the worker (`visitor`) joins the mount namespace of a process
in the container, gives up what it does not need, and then looks paths up (`lookup`), packs (`packing`) or places files
(`placing`) by plain system calls: whatever a link in the container points to, it leads nowhere else.
"""
