"""The sockets the engine listens on, and what each of them lets its clients do.

doors     one listening socket: how many clients, which scope
scopes    what a scoped socket permits: areas, reading only, labels
powers    what a container may be given through a scoped socket: nothing that reaches the host
guard     every request of a scoped socket: let through, narrowed to the scope, or refused
audit     who was refused what
scoped    scoped sockets as they are added, listed, removed and brought back
"""
