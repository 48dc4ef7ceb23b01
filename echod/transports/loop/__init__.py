"""The event loop within the reactor: an epoll of our own, and whether it is served."""
