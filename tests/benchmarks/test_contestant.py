import pytest
import torch
from torch import nn

from benchmarks.contestant import own_forward


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_trainer_put_around_a_model_is_away_for_a_while(fails):
    model = nn.Linear(2, 2, bias=False)
    rows = torch.ones(1, 2)
    plain = model(rows)
    model.forward = lambda rows: "in autocast"
    try:
        with own_forward(model):
            assert torch.equal(model(rows), plain)
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert model(rows) == "in autocast"
    del model.forward
    with own_forward(model):
        assert torch.equal(model(rows), plain)
    assert "forward" not in vars(model)
