"""
The process: words of the command line in, signals, logs, and what a service manager is told.

It may know `echod.server` and every room below.  ``twistd`` finds it by the plugin, which names
`echod.daemon.options`.
"""
