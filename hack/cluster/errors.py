"""The one exception that ends a command with a message instead of a trace."""

CANNOT = 3
"""Exit code of a machine that cannot carry a cluster, as opposed to a cluster that failed."""


class ClusterError(Exception):
    """Says what was seen and what was wanted. `code` is the command's exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
