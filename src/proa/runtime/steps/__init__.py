"""One kernel-visible action each: what a plan is made of.

A step is made in the monitor, where it may read the host and fail with an explanation, and executed in the child, where
it may only call the kernel: no import, no name lookup, nothing the container's files could influence.
"""
