"""Silences transformers while models are loaded, trained and saved, and names what its models raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transformers.utils.logging as transformers_logging

FAULTS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, NotImplementedError, AssertionError)
"""what transformers' models raise when they are called in a way that they do not know (NotImplementedError: a kernel or cache that
an architecture lacks). Out of memory is a RuntimeError too, and no answer to a trial: it is raised on"""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Switch off transformers' progress bars and warnings inside the block."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
