"""LoRA: an adapter starts as no change, alone is trained, is merged into what is saved, and can be carried on."""

import pytest
import torch

from configs.errors import ConfigError
from configs.schema.grpo import LoraConfig
from grpo_train.policies.adapter import FOLDER, Adapter, carried_adapter
from grpo_train.policies.model import load_policy, save_policy
from tests.grpo_train.updating.test_learner import advantages, learner, written_by

MERGE, CARRY_ON = LoraConfig(rank=2, alpha=4), LoraConfig(rank=2, alpha=4, between_rounds="carry_on")


def logits_of(model):
    with torch.no_grad():
        return model(torch.arange(5, 25).unsqueeze(0)).logits


def trained_names(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_a_new_adapter_changes_nothing_and_is_drawn_from_its_seed(tiny):
    model, _ = tiny
    before = logits_of(model)
    drawn = []
    for seed in (0, 0, 1):
        adapter = Adapter(model, MERGE, seed=seed)
        assert torch.equal(logits_of(model), before)
        drawn.append(torch.cat([w.detach().flatten() for name, w in model.named_parameters() if "lora_A" in name]))
        assert all("lora_" in name for name in trained_names(model))
        model = adapter.merge()
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_trains_the_adapter_alone_and_the_merged_model_is_the_trained_one(tiny, precision):
    model, _ = tiny
    completions = written_by(model)
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapter = Adapter(model, MERGE, seed=0)
    trained = learner(model, precision=precision, learning_rate=1e-2)
    assert trained.update(completions, advantages())["policy/grad_norm"] > 0
    weights = model.state_dict()
    for name, weight in base.items():
        place = name if name in weights else name.replace(".weight", ".base_layer.weight")
        assert torch.equal(weights[place], weight)
    held = sum(value.numel() for value in trained.components()["weights"].state().values())
    assert held < 0.1 * sum(weight.numel() for weight in base.values())
    with_adapter = logits_of(model)
    merged = adapter.merge()
    assert not trained_names(merged) or all("lora_" not in name for name in trained_names(merged))
    assert sorted(merged.state_dict()) == sorted(base)
    torch.testing.assert_close(logits_of(merged), with_adapter, rtol=0, atol=1e-5)
    assert not torch.allclose(with_adapter, logits_of_weights(merged, base), atol=1e-3)


def logits_of_weights(model, weights):
    held = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(weights)
    found = logits_of(model)
    model.load_state_dict(held)
    return found


def test_a_carried_adapter_goes_on_from_the_merged_policy_on_its_first_base(tiny, tmp_path):
    model, tokenizer = tiny
    given = save_policy(model, tokenizer, tmp_path / "given", round_index=0)
    model, _ = load_policy(given.path, device="cpu")
    adapter = Adapter(model, CARRY_ON, seed=0)
    learner(model, learning_rate=1e-2).update(written_by(model), advantages())
    adapter.save(tmp_path / "policy" / FOLDER, given)
    champion = save_policy(adapter.merge(), tokenizer, tmp_path / "policy" / "model", round_index=1)

    found = carried_adapter(champion, CARRY_ON)
    assert found == (given, tmp_path / "policy" / FOLDER)
    base, folder = found
    again, _ = load_policy(base.path, device="cpu")
    Adapter(again, CARRY_ON, seed=1, carried=folder)
    torch.testing.assert_close(
        logits_of(again), logits_of(load_policy(champion.path, device="cpu")[0]), rtol=0, atol=1e-5
    )
    assert trained_names(again)

    assert carried_adapter(champion, MERGE) is None
    for other in ({"rank": 4}, {"alpha": 8}, {"target_modules": ["q_proj"]}):
        assert carried_adapter(champion, CARRY_ON.model_copy(update=other)) is None
    assert carried_adapter(given, CARRY_ON) is None
    model.train(False)
    save_policy(again, tokenizer, tmp_path / "given", round_index=0)  # other weights under the base's path
    assert carried_adapter(champion, CARRY_ON) is None


def test_a_module_that_is_not_there_is_named(tiny):
    model, _ = tiny
    lora = LoraConfig(target_modules=["nonesuch"])
    with pytest.raises(ConfigError, match=r"target_modules=\['nonesuch'\] does not fit"):
        Adapter(model, lora, seed=0)
