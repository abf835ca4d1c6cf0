"""What the benchmark of writing ahead says of its trainings."""

from benchmarks.servers.overlap import OF_STEPS, report


def test_differences_are_those_of_each_seed() -> None:
    none = dict.fromkeys(OF_STEPS)
    found = {
        (0, 3): {"seconds": 100.0, "accuracy": 0.5, **none},
        (1, 3): {"seconds": 80.0, "accuracy": 0.5, **none},
        (0, 4): {"seconds": 104.0, "accuracy": 0.75, **none},
        (1, 4): {"seconds": 82.0, "accuracy": 0.5, **none, "time/overlapped": 1.5},
    }
    lines = report(0.25, found, [3, 4]).splitlines()
    assert lines[5].startswith("| 1 | 4 | 82.0 | 0.500 | - | 1.5 |")
    # differences -20 and -22: mean -21, half-width 12.706 x sqrt(2) / sqrt(2); 0 and -0.25: 12.706 x 0.125
    assert lines[-2].endswith("difference, seed by seed: -21.000 ± 12.706")
    assert lines[-1].endswith("0.625 ± 1.588 with 0, 0.500 ± 0.000 with 1; difference, seed by seed: -0.125 ± 1.588")
