"""Which errors of the engine mean that another rank is lost. All others are passed on as what they are."""

import re

import torch
import torch.distributed as dist

from laconic.errors import PayloadsLostError

_TIMEOUT = re.compile(r"timed? ?out|not done in time", re.IGNORECASE)
_CONNECTION = re.compile(
    r"gloo/(transport|rendezvous)|connection (was )?(closed|reset|refused|aborted)|broken pipe|socket closed|"
    r"pair is not connected|closed by peer",
    re.IGNORECASE,
)
_MISUSE = re.compile(r"enforce fail", re.IGNORECASE)  # gloo's checks of its arguments, in whatever file they are
_NETWORK_ERRORS = (dist.DistNetworkError, dist.DistStoreError, PayloadsLostError)


def is_timeout(error: RuntimeError) -> bool:
    """Return whether the engine waited in vain. It has then closed all connections of that group."""
    return bool(_TIMEOUT.search(str(error)))


def is_of_the_network(error: RuntimeError) -> bool:
    """Return whether the error says by itself that a connection failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    text = str(error)
    if _MISUSE.search(text) and "not connected" not in text:
        return False
    return isinstance(error, _NETWORK_ERRORS) or bool(_TIMEOUT.search(text) or _CONNECTION.search(text))
