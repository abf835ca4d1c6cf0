"""All errors of our own, in one tree. Their messages name the value at fault and the remedy.

Each also is the builtin error that it is a case of, so that it can be caught as that.
"""

from __future__ import annotations


class RegroupError(Exception):
    """The root: whatever Regroup raises on purpose."""


class ConfigError(RegroupError, ValueError):
    """Configuration or data at fault: the user can mend it (exit code 2)."""


class RewardError(RegroupError, ValueError):
    """A reward is at fault: it raised, or returned what is no score. Names reward, problem and text."""


class WorkspaceBusy(RegroupError, RuntimeError):
    """Another run holds the workspace; the message names it (exit code 3)."""


class TrainingDiverged(RegroupError, FloatingPointError):
    """Loss or gradient was NaN or infinite; the model still holds the weights of the last good update."""


class JobFailed(RegroupError, RuntimeError):
    """A child job ended without having done its work, and without one of the other errors."""


class StageStopped(RegroupError):
    """A stop was asked for and the stage ended at a step boundary (exit code 130)."""


BY_NAME: dict[str, type[RegroupError]] = {
    kind.__name__: kind for kind in (ConfigError, RewardError, WorkspaceBusy, TrainingDiverged, JobFailed, StageStopped)
}
"""for an error that another process tells of"""
