from pathlib import Path

import pytest

import configs
from configs.reader import load_config

PRESETS = sorted(Path(configs.__file__).parent.glob("*.yaml"))
EXPERIMENTS = sorted((Path(configs.__file__).parents[1] / "docs" / "experiments").glob("*.yaml"))


def test_the_presets_are_there() -> None:
    assert {"gsm8k.yaml", "long_chains.yaml", "quickstart.yaml", "tiny.yaml"} <= {path.name for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_parses_and_trains_a_reward_model(path: Path) -> None:
    config = load_config(path)
    assert config.run.name == path.stem
    assert config.trained_reward_models
    assert config.rounds >= 2


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_configuration_of_an_experiment_parses(path: Path) -> None:
    assert load_config(path).run.name == path.stem


def test_quickstart_mixes_a_reward_model_of_weight_with_other_objectives() -> None:
    config = load_config(Path(configs.__file__).parent / "quickstart.yaml")
    weights = {reward.name: reward.weight for reward in config.rewards}
    assert len(weights) >= 3
    assert max(reward.weight for reward in config.rewards if reward.kind == "reward_model") >= 0.2
    assert config.problems.test >= 128
