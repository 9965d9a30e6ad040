"""What a user sees when something is wrong: one exception for each exit code."""


class UserFacingError(Exception):
    """Printed without a traceback, in at most three lines: what was given, what holds, what to do."""

    exit_code = 1


class InputError(UserFacingError):
    """The user's input cannot be used: settings, text, prompt or paths."""

    exit_code = 2


class ArtifactError(UserFacingError):
    """A file from elsewhere (weights, checkpoint, token file) is unsafe or damaged."""

    exit_code = 3


class DivergedError(UserFacingError):
    """The loss is no longer a finite number."""

    exit_code = 4


class InfrastructureError(UserFacingError):
    """The machine failed, not the input: disk full, a lost rank, out of memory."""

    exit_code = 5


class StoppedError(UserFacingError):
    """A signal ended the run, after its state was saved."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class ReaderGoneError(UserFacingError):
    """Nobody reads the output any more, as in `| head`: nothing is left to say, nor anyone to say it to."""

    exit_code = 141  # that of a program that SIGPIPE ended


class ToldError(UserFacingError):
    """The first process of a run has ended, and has said why: the others have nothing to add."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("ended with the first process of the run")
        self.exit_code = exit_code
