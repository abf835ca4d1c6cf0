"""Room behind the keys changes nothing that is written."""

import pytest
import torch

from grpo_train.sampling.key_value_cache import ROOM, RoomyLayer, sampling_cache
from reward_training.transformer.attention.kernels import GROUPED

PROMPT = ROOM - 2


@pytest.mark.parametrize("attention", [GROUPED, "eager", "sdpa"])
def test_logits_with_the_cache_are_those_without_across_its_growth_and_a_selection_of_rows(tiny, attention):
    model, _ = tiny
    model.set_attn_implementation(attention)
    torch.manual_seed(0)
    ids = torch.randint(5, 90, (3, PROMPT + 4))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    order = torch.tensor([2, 1, 1, 0])
    with torch.inference_mode():
        whole = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        cache = sampling_cache(model)
        model(
            input_ids=ids[:, :PROMPT],
            attention_mask=mask[:, :PROMPT],
            position_ids=positions[:, :PROMPT],
            past_key_values=cache,
        )
        cache.batch_select_indices(order)
        for end in range(PROMPT + 1, PROMPT + 5):
            logits = model(
                input_ids=ids[order, end - 1 : end],
                attention_mask=mask[order, :end],
                position_ids=positions[order, end - 1 : end],
                past_key_values=cache,
            ).logits
            torch.testing.assert_close(logits[:, 0], whole[order, end - 1], rtol=1e-4, atol=1e-4)
    assert cache.get_seq_length() == PROMPT + 4
    assert [layer.keys.shape[2] for layer in cache.layers] == [2 * ROOM, 2 * ROOM]


def test_a_token_is_written_in_place_until_the_room_is_full():
    layer = RoomyLayer()
    states = torch.randn(2, 3, 1, 4)
    addresses = set()
    for _ in range(2 * ROOM):
        keys, values = layer.update(states, states + 1)
        addresses.add(keys.data_ptr())
    assert len(addresses) == 2
    assert torch.equal(keys, states.expand(2, 3, 2 * ROOM, 4))
    assert torch.equal(values, keys + 1)


def test_rows_become_copies_of_others_where_they_are_and_behind():
    layer = RoomyLayer()
    states = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, ROOM - 1, 4)
    layer.update(states, -states)
    for num_rows in (5, 6):  # the first needs a larger storage, which has room for the second
        layer.fork(torch.tensor([1, num_rows - 1]), torch.tensor([0, 2]), num_rows)
    keys, values = layer.update(torch.full((6, 2, 1, 4), 9.0), torch.full((6, 2, 1, 4), -9.0))
    assert keys[:, 0, 0, 0].tolist()[:3] == [0, 0, 2]
    assert keys[:, 0, 0, 0].tolist()[4:] == [2, 2]
    assert (keys[:, :, ROOM - 1] == 9).all()
    assert torch.equal(values[[0, 1, 2, 4, 5]], -keys[[0, 1, 2, 4, 5]])
    layer.batch_select_indices(torch.tensor([5, 0]))
    assert layer.keys[:, 0, 0, 0].tolist() == [2, 0]


def test_the_room_of_new_rows_is_zeros_whatever_memory_they_get(monkeypatch):
    """A masked product with NaN would be NaN."""
    layer = RoomyLayer()
    layer.update(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda states, *shape: torch.full(shape, torch.nan))
    for num_rows in (3, 4):  # the second finds room in the storage of the first
        layer.fork(torch.tensor([num_rows - 1]), torch.tensor([0]), num_rows)
        for states in (layer.keys, layer.values):
            assert (states[:, :, :3] == 1).all()
            assert (states[:, :, 3:] == 0).all()
