"""
Socket activation: the sockets that this process was started with (sd_listen_fds(3)).

systemd, or whoever does as it does, passes sockets as descriptors from 3 on and says in the
environment how many (``LISTEN_FDS``), to which process (``LISTEN_PID``) and by which names
(``LISTEN_FDNAMES``, with colons between).  `PassedSockets.fromEnvironment` reads that, once, as the
process starts: a daemon forks later, and its number is another then.  `PassedSockets.find` gives
the sockets that an endpoint word means.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, MutableMapping, Sequence

from echod.config.endpoints import DescriptorEndpoint, Endpoint, SystemdEndpoint
from echod.errors import ConfigurationError
from echod.transports.adopted import examine

__all__ = ["PassedSockets"]

#: The first one that is passed (``SD_LISTEN_FDS_START``).
_FIRST = 3
#: The name of those that were given none, as sd_listen_fds_with_names(3) has it.
_UNNAMED = "unknown"
#: Digits of the number of descriptors at most: it would have more than any process may open
#: (fs.nr_open, proc(5), is 1 048 576 if nobody has raised it).
_DIGITS = 7


class PassedSockets:
    """
    Descriptors that were passed, by name.

    :param names: the descriptors of each name: several, where one socket unit has several sockets.
    :param absence: why there are none, for messages.
    """

    def __init__(
        self, names: Mapping[str, Sequence[int]] | None = None, absence: str = "none was asked for"
    ) -> None:
        self._names = names or {}
        self._absence = absence

    @classmethod
    def fromEnvironment(cls, environment: MutableMapping[str, str], process: int) -> PassedSockets:
        """
        Read what was passed; the variables are taken out, and nothing is left to inherit.

        :param process: our own number: what was passed to another is not ours.
        :raises ConfigurationError: the variables contradict each other, or what is open.
        """
        addressee, count, names = (
            environment.pop(key, None) for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
        )
        if addressee is None or count is None:
            missing = "LISTEN_PID" if addressee is None else "LISTEN_FDS"
            return cls(absence=f"{missing} is not set: start echod by its socket unit")
        if addressee != str(process):
            return cls(
                absence=f"LISTEN_PID is {addressee!r} and this is process {process}:"
                " a shell in ExecStart= must exec echod"
            )
        if not (count.isascii() and count.isdigit() and len(count) <= _DIGITS):
            raise ConfigurationError(f"LISTEN_FDS is {count!r}: it must be a number of descriptors")
        if not int(count):
            return cls(absence="LISTEN_FDS is 0: start echod by its socket unit")
        descriptors = range(_FIRST, _FIRST + int(count))
        words = [_UNNAMED] * len(descriptors) if names is None else names.split(":")
        if len(words) != len(descriptors):
            raise ConfigurationError(
                f"LISTEN_FDNAMES is {names!r}, but LISTEN_FDS is {count}:"
                " there must be one name for each descriptor"
            )
        found: dict[str, list[int]] = {}
        for word, descriptor in zip(words, descriptors, strict=True):
            try:
                os.set_inheritable(descriptor, False)
            except OSError as error:
                raise ConfigurationError(
                    f"LISTEN_FDS is {count}, but descriptor {descriptor} is not open:"
                    " whoever starts echod must keep it open"
                ) from error
            found.setdefault(word, []).append(descriptor)
        return cls(found)

    def find(self, endpoint: Endpoint) -> list[tuple[Endpoint, int | None]]:
        """
        What to listen on: each socket that is meant, with its descriptor; or ``endpoint`` itself.

        :raises ConfigurationError: there is none of that name, or it cannot be listened on.
        """
        if isinstance(endpoint, DescriptorEndpoint):
            return [(examine(endpoint.descriptor), endpoint.descriptor)]
        if isinstance(endpoint, SystemdEndpoint):
            return [(examine(number), number) for number in self._named(endpoint.name)]
        return [(endpoint, None)]

    def checkUsed(self, used: Collection[int | None]) -> None:
        """
        See that every descriptor is somebody's: clients of one that is not would wait for ever.

        :raises ConfigurationError: naming those that are not ``used``.
        """
        unused = [
            f"{number} ({name})"
            for name, numbers in self._names.items()
            for number in numbers
            if number not in used
        ]
        if unused:
            raise ConfigurationError(
                f"no listener uses what was passed as descriptor {', '.join(unused)}:"
                " add --listen PROTOCOL=systemd:name=NAME, or take it out of the socket unit"
            )

    def _named(self, name: str) -> Sequence[int]:
        if not self._names:
            raise ConfigurationError(f"no socket was passed: {self._absence}")
        if name not in self._names:
            raise ConfigurationError(
                f"no socket named {name!r} was passed (there are: {', '.join(self._names)})"
            )
        return self._names[name]
