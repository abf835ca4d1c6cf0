"""The exception tree of Regroup. Each message names the faulty value and the remedy.

Every class except `RegroupError` and `StageStopped` also derives from the builtin exception that fits it, so callers
can catch it as that.
"""

from __future__ import annotations


class RegroupError(Exception):
    """Base class of the errors that a user or a caller can act on; other exceptions are bugs or come from libraries."""


class ConfigError(RegroupError, ValueError):
    """The configuration or the data is faulty; the user can fix it (exit code 2)."""


class TemplateRefusal(ConfigError):
    """A chat template does not take the messages that it was given."""


class UnreadableRow(ConfigError):
    """A row of data holds what no prompt or answer can be made of. It is left out, unless most rows are so."""


class RewardError(RegroupError, ValueError):
    """A reward raised, or returned something that is not a score. The message names reward, problem and text."""


class WorkspaceBusy(RegroupError, RuntimeError):
    """Another run holds the lock on the workspace; the message names that run (exit code 3)."""


class TrainingDiverged(RegroupError, FloatingPointError):
    """The loss or the gradient was NaN or infinite. The model still holds the weights of the last finite update."""


class JobFailed(RegroupError, RuntimeError):
    """A child process ended before its stage was done, without reporting one of the other errors."""


class ServerAway(RegroupError, ConnectionError):
    """A server cannot be reached, does not answer in time, or its engine is dead; waiting may help."""


class ServerRefused(RegroupError, RuntimeError):
    """A server that works does not do what it was asked; the message has its text."""

    def __init__(self, text: str, *, status: int | None = None) -> None:
        """`status` is that of the HTTP response; None where it has none, or was not read."""
        super().__init__(text)
        self.status = status


class ServerDiffers(RegroupError, RuntimeError):
    """A vLLM server gives other probabilities than the policy whose weights it should hold."""


class StageStopped(RegroupError):
    """The stage was asked to stop and ended at a step boundary (exit code 130)."""


BY_NAME: dict[str, type[RegroupError]] = {
    kind.__name__: kind for kind in [*RegroupError.__subclasses__(), *ConfigError.__subclasses__()]
}
"""{class name: class}, to raise again an error that a child process reported by name"""
