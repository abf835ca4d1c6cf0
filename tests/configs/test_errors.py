"""The tree of our own errors."""

import inspect

from configs import errors
from configs.records import is_right


def test_every_error_is_in_the_tree_and_can_be_named_by_another_process() -> None:
    found = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    root = found.pop("RegroupError")
    assert found == errors.BY_NAME
    assert all(issubclass(kind, root) for kind in found.values())


def test_errors_are_also_the_builtin_ones_that_they_are_cases_of() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.TrainingDiverged, ArithmeticError)
    assert not issubclass(errors.StageStopped, (ValueError, RuntimeError))


def test_a_response_is_right_from_one_on_and_unknown_is_not_right() -> None:
    assert [is_right(value) for value in (None, 0.0, 0.999, 1.0, 1.5)] == [False, False, False, True, True]
