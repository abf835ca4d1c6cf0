"""How long the threads of a matrix product wait for each other before they sleep."""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = "10000"
"""about half a millisecond where PAUSE takes 140 cycles, as on Intel since 2017, and less elsewhere"""
OF_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Let libgomp's threads sleep after SPINS turns of waiting, unless `environment` says how they wait.

    Left to itself a thread spins for some milliseconds at the end of each operation. Where its partner has lost the core to
    another process it keeps the other core from both, and a step takes 3.5 times as long beside one busy process; with SPINS
    it takes 2.2 times as long, and on a machine of its own no longer than before (docs/log.md). Asleep at once
    (`OMP_WAIT_POLICY=passive`) it would be 1.6 times, and a quarter slower where nothing else runs.

    libgomp reads it once, when it is loaded: call this before torch is imported.
    """
    if not any(name in environment for name in OF_WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS
