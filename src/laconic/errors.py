"""The error classes of laconic. Wrong arguments raise Python's ValueError or TypeError."""


class LaconicError(Exception):
    """Base class of all errors below."""


class ContractError(LaconicError, RuntimeError):
    """An algorithm or a peer violated the rules of a round."""


class NonFiniteError(LaconicError):
    """A worker's vector holds inf or NaN. The round is aborted; users never see this error."""


class ReplicaError(LaconicError, RuntimeError):
    """Ranks that should have equal parameters have different ones."""


class SetupError(LaconicError, ValueError):
    """Ranks were started with different settings."""


class PeerLostError(LaconicError, RuntimeError):
    """A rank did not answer before the deadline. The process group cannot be used any more."""


class PayloadsLostError(LaconicError, RuntimeError):
    """A transfer of payloads over the second process group failed. The channel's own connections still work."""


class WireError(LaconicError, ValueError):
    """A buffer is not a valid frame. Nothing in it may be used."""


class LaunchError(LaconicError, RuntimeError):
    """A child process failed or died; the message names it and the reason."""


class DatasetError(LaconicError, ValueError):
    """A data file is missing, truncated, of another type, or unexpected."""
