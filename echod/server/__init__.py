"""
What listens: plans, the service that carries them out, reloads, listeners, and who is admitted.

It may know every room below: `echod.protocols` (by the registry), `echod.kit`, `echod.connection`,
`echod.transports`, `echod.tls`, `echod.config`.  It knows nothing of a process: signals, service
managers and log files are `echod.daemon`'s.
"""
