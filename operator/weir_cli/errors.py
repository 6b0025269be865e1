"""What ends a command early: one line for a person, and an exit code for a script."""


class CommandError(Exception):
    """The message is a whole line. Code 2: used or configured wrongly. Code 1: all else."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(CommandError):
    """Nobody answers at the address; asking again later may help."""


class MissingError(CommandError):
    """Somebody answers, but has no such route or no such path."""
