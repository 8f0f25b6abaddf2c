"""Hold one container's streams, log, execs and exit record, independent of the engine.

A *nursery* process (`nursery`, `zygote`) is started once by the engine; for each container start it forks a
*monitor*, which launches the container and outlives the engine. The engine speaks with a monitor through
`client.MonitorConnection`; `protocol` has the messages, `records` the files a monitor leaves behind.

    engine --seqpacket--> nursery --fork--> monitor --clone--> container init
    engine --monitor.sock (JSON lines, descriptors)--> monitor <--frames / raw bytes--> attached client sockets
"""
