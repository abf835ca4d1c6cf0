from pathlib import Path

import pytest

import configs
from configs.reader import load_comparison, load_config
from configs.wheels import data_wheels, wheel_folder
from tests.paths import ROOT

COMPARE = Path(configs.__file__).parent / "compare.yaml"
"""is a comparison of runs, and not the configuration of one"""
PRESETS = sorted(path for path in Path(configs.__file__).parent.glob("*.yaml") if path != COMPARE)
EXPERIMENTS = sorted((Path(configs.__file__).parents[1] / "docs" / "experiments").glob("*.yaml"))


def test_the_presets_are_there() -> None:
    assert {"gsm8k.yaml", "long_chains.yaml", "quickstart.yaml", "tiny.yaml", "tiny_vllm.yaml"} <= {
        path.name for path in PRESETS
    }


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_parses_and_trains_a_reward_model(path: Path) -> None:
    config = load_config(path)
    assert config.run.name == path.stem
    assert config.trained_reward_models
    assert config.rounds >= 2


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_configuration_of_an_experiment_parses(path: Path) -> None:
    is_comparison = "\ncompare:\n" in path.read_text(encoding="utf-8")
    name = load_comparison(path).name if is_comparison else load_config(path).run.name
    assert name == path.stem


def test_make_looks_for_the_wheel_where_the_quickstarts_suites_have_theirs() -> None:
    """An empty folder of the wheel's name is none: what make looks for is in the folder."""
    config = load_config(Path(configs.__file__).parent / "quickstart.yaml")
    [(folder, name)] = {
        (wheel_folder(wheel), f"{wheel.package}-{wheel.version}") for wheel in data_wheels(config).values()
    }
    assert f"DATA := {folder}/{name}.dist-info/RECORD\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert config.promotion.retention.keys() < config.evaluation.retention.keys()


def test_quickstart_mixes_a_reward_model_of_weight_with_other_objectives() -> None:
    config = load_config(Path(configs.__file__).parent / "quickstart.yaml")
    weights = {reward.name: reward.weight for reward in config.rewards}
    assert len(weights) >= 3
    assert max(reward.weight for reward in config.rewards if reward.kind == "reward_model") >= 0.2
    assert config.problems.test >= 128
