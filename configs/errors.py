"""Errors that more than one room raises or catches. Their messages name the value at fault and the remedy."""

from __future__ import annotations


class ConfigError(ValueError):
    """Configuration or data at fault: the user can mend it (exit code 2)."""


class WorkspaceBusy(RuntimeError):
    """Another run holds the workspace; the message names it (exit code 3)."""


class StageStopped(Exception):
    """A stop was asked for and the stage ended at a step boundary (exit code 130)."""
