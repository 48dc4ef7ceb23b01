"""
How many descriptors there are, and how many connections fit into them.

A daemon that runs out of descriptors refuses everybody; so the limit is raised as far as it goes,
and the listeners' ``max_connections`` are fitted into it before anything is bound.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence

from echod.errors import ConfigurationError
from echod.transports.pipes import DESCRIPTORS
from echod.transports.ports import ACCEPTS

__all__ = ["descriptorsFor", "extraFor", "fitDescriptors", "raiseDescriptorLimit"]

#: The share of the limit that connections which we ended may take besides.
EXTRA = 0.05
#: Descriptors for everything but connections: log, reactor, plugins, pipes; and for each listener
#: its own, and a batch of connections that were aborted for those just accepted.
RESERVED = 64 + DESCRIPTORS
RESERVED_EACH = 1 + ACCEPTS


def extraFor(maximum: int) -> int:
    """How many connections that we ended may be there besides ``maximum``."""
    return math.ceil(maximum * EXTRA)


def raiseDescriptorLimit() -> int:
    """Raise the soft limit of descriptors to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def descriptorsFor(maximum: int) -> int:
    """How many the connections of a listener may take, those on their way out included."""
    return maximum + extraFor(maximum)


def fitDescriptors(wanted: Sequence[tuple[int, bool]], limit: int, held: int = 0) -> list[int]:
    """
    Fit listeners' ``max_connections`` into a descriptor limit.

    :param wanted: for each listener its maximum, and whether somebody asked for just that.
    :param held: descriptors that connections of earlier listeners have.
    :returns: the maxima to use: what was asked for stays, defaults share the rest.
    :raises ConfigurationError: if what was asked for does not fit, or nothing is left.
    """
    reserved = RESERVED + RESERVED_EACH * len(wanted)
    room = limit - reserved - held
    asked = sum(descriptorsFor(count) for count, explicit in wanted if explicit)
    defaults = [count for count, explicit in wanted if not explicit]
    if asked > room or (defaults and room - asked < 2 * len(defaults)):
        total = sum(count for count, explicit in wanted if explicit) or len(defaults)
        raise ConfigurationError(
            f"max_connections of {total} in all does not fit the descriptor limit of {limit}"
            f" ({reserved} are kept, and {EXTRA:.0%} more are for connections on their way out)"
            + f", of which {held} are with connections of before the reload" * (held > 0)
            + ": lower it, or raise the limit (ulimit -Hn, LimitNOFILE=)"
            + ", or wait until they have ended" * (held > 0)
        )
    if sum(map(descriptorsFor, defaults)) <= room - asked:
        return [count for count, _ in wanted]
    share = int((room - asked) / len(defaults) / (1 + EXTRA))
    while descriptorsFor(share) > (room - asked) // len(defaults):
        share -= 1
    return [count if explicit else min(count, share) for count, explicit in wanted]
