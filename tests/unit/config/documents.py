"""Documents of TOML, for the tests of what is read of them."""

from __future__ import annotations

import pytest

from echod.config.settings import parseConfiguration
from echod.errors import ConfigurationError

LISTENER = '[[listener]]\nprotocol = "raw"\nendpoint = "tcp:1"\n'


def refused(text: str) -> str:
    """The message that refuses the document: one line, always."""
    with pytest.raises(ConfigurationError) as caught:
        parseConfiguration(text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
