"""
The ``twistd echod`` command: names only, so that looking for plugins imports nothing.

Installed as ``twisted/plugins/echod_plugin.py``; no reactor may be imported here
(it would take the choice from ``twistd --reactor``).
"""

from twisted.application.service import ServiceMaker

echod = ServiceMaker(
    "echod",
    "echod.daemon.options",
    "An echo daemon: raw, line and length-prefixed echo that never loses a byte.",
    "echod",
)
