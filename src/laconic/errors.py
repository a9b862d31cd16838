"""Every error that laconic raises by name, as one tree. Wrong arguments raise Python's ValueError or TypeError."""


class LaconicError(Exception):
    """The base of all errors below."""


class ContractError(LaconicError, RuntimeError):
    """An algorithm, or a peer, broke the rules of a round."""


class NonFiniteError(LaconicError):
    """A worker brings inf or NaN into a round. It aborts the round, and users never see it."""


class ReplicaError(LaconicError, RuntimeError):
    """Ranks whose parameters should be equal have different ones."""


class SetupError(LaconicError, ValueError):
    """Ranks were started with different settings."""


class PeerLostError(LaconicError, RuntimeError):
    """A rank that was waited for did not come. The process group cannot be used any more."""


class PayloadsLostError(LaconicError, RuntimeError):
    """A transfer over the second group failed. The channel's own connections are as they were."""


class WireError(LaconicError, ValueError):
    """A buffer is not a frame of this format. Nothing of it may be used."""


class LaunchError(LaconicError, RuntimeError):
    """A child process failed or died. The message says which and how."""


class DatasetError(LaconicError, ValueError):
    """A data file is missing, truncated, of another type, or was not asked for."""
