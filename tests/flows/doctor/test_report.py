import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import CohereConfig, LlamaConfig

import flows.doctor.checks as doctor_checks
import flows.doctor.golds as doctor_golds
import flows.doctor.resources as doctor_resources
import flows.doctor.rewards as doctor_rewards
from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from flows.cli import main
from flows.doctor.checks import Finding, num_parameters
from flows.doctor.report import DoctorReport, check, refuse_faulty, render
from flows.doctor.resources import memory_needed
from flows.doctor.rewards import promotion_metrics
from grpo_train.policies.tiny_model import build_tiny_tokenizer, save_tiny_model
from reward_training.answers.finding.extraction import extractor
from tests.paths import ROOT, TINY
from tests.reward_training.rewards.test_model_reward import save_model

Configure = Callable[..., Config]


def _found(report: DoctorReport, name: str) -> Finding:
    return next(check for check in report.findings if check.name == name)


def test_tiny_preset_passes_with_small_splits_as_the_only_warnings(configure: Configure, workspace: Path) -> None:
    report = check(configure(), workspace)
    assert not report.failed
    assert {check.name for check in report.findings if check.status == "warn"} == {"split dev", "split test"}
    assert _found(report, "problems").detail == "train 28, dev 16, test 16, 3 shards of 40; left out: nothing"
    # 6 updates of 16 / 4 problems each
    assert _found(report, "batches").detail == "6 updates a round on 4 problems x 4; 0.86 of 28 problems"
    assert _found(report, "answers").detail == "number 180"
    assert _found(report, "gold answers, correct").detail == "128 of 128 pass"
    assert _found(report, "changed answers, correct").detail == "128 of 128 fail, as they should"


@pytest.mark.parametrize("extract", ["last_number", "tag", "whole", "final", "boxed", "hash", "answer_is", "json"])
def test_gold_answers_are_found_wherever_the_reward_looks(extract: str) -> None:
    reward = OutcomeRewardConfig(name="correct", extract=extract, strict=True)
    text = doctor_golds.written_as_asked("12", reward)
    assert extractor(reward)(text, "How many are a dozen?") == "12"


def test_quick_check_starts_no_checker_process(
    configure: Configure, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a process pool was started")

    monkeypatch.setattr("reward_training.scorer.CheckerPool", refuse)
    slow = {"name": "symbolic", "kind": "outcome", "checker": "regex", "pattern": ".*", "weight": 0}
    report = check(configure(evaluation={"rewards": [slow]}), workspace, quick=True)
    assert not report.failed
    assert [found.name for found in report.findings if "answers," in found.name] == [
        "gold answers, correct",
        "changed answers, correct",
    ]


def test_run_is_refused_with_every_finding_and_its_remedy(configure: Configure, workspace: Path) -> None:
    mine = {"name": "mine", "kind": "python", "function": "no_such_module:reward", "weight": 0}
    config = configure(evaluation={"rewards": [mine]}, promotion={"metric": "accuracy"})
    with pytest.raises(ConfigError) as caught:
        refuse_faulty(config, workspace)
    assert "cannot import 'no_such_module'" in str(caught.value)
    assert "promotion.metric=accuracy is not measured; use one of greedy_accuracy" in str(caught.value)


@pytest.mark.parametrize(
    ("metric", "checker", "fails"),
    [
        ("sampled/taste", None, True),
        ("greedy/steps", None, True),
        ("greedy_accuracy", "taste", True),
        ("greedy_accuracy", None, False),
        ("sampled/correct", "taste", False),
    ],
)
def test_a_reward_model_that_each_round_retrains_decides_about_no_promotion(
    metric: str, checker: str | None, fails: bool, configure: Configure, workspace: Path
) -> None:
    steps = {"name": "steps", "kind": "process", "checked_by": "taste"}
    config = configure(evaluation={"rewards": [steps], "checker": checker}, promotion={"metric": metric})
    found = next(f for f in check(config, workspace, quick=True).findings if f.name == "promotion")
    assert (found.status == "fail") == fails
    assert ("reward model 'taste', which each round trains anew" in found.detail) == fails


def test_column_that_a_reward_function_needs_is_looked_for(configure: Configure, workspace: Path) -> None:
    (workspace / "trl_style_of_test.py").write_text(
        "def reward(completions, target, **kwargs):\n    return [0.0] * len(completions)\n"
    )
    mine = {"name": "mine", "kind": "python", "function": "trl_style_of_test:reward", "weight": 0}
    found = _found(check(configure(evaluation={"rewards": [mine]}), workspace, quick=True), "reward mine")
    assert found.status == "ok"  # the function itself is as it should be
    with pytest.raises(
        ConfigError, match="needs the column 'target', which problems of chain_sum lack; add it to the data"
    ):
        refuse_faulty(configure(evaluation={"rewards": [mine]}), workspace)


# ---- findings -------------------------------------------------------------------------------------------------------


def test_curriculum_by_difficulties_that_the_data_lacks_fails(configure: Configure, workspace: Path) -> None:
    report = check(configure(curriculum={"kind": "threshold"}), workspace, quick=True)
    found = _found(report, "problems")
    assert found.status == "fail"
    assert "have no difficulty, for instance one of chain_sum; name its column" in found.detail


def test_gold_answers_that_their_own_checker_refuses_fail(configure: Configure, workspace: Path) -> None:
    rows = [{"question": f"Colour {i}?", "answer": f"red {i} or blue"} for i in range(180)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check(configure(problems={"sources": [{"kind": "jsonl", "path": "a.jsonl"}]}), workspace)
    found = _found(report, "gold answers, correct")
    assert found.status == "fail"
    assert found.detail.startswith("128 of 128 fail, for instance 'red ")
    assert found.remedy.startswith("extract: last_number with checker: exact does not fit")


def test_reasoning_gym_scorer_is_refused_for_other_sources(configure: Configure) -> None:
    sources = [{"kind": "jsonl", "path": "a.jsonl"}]
    scorer = {"name": "correct", "kind": "outcome", "checker": "reasoning_gym"}
    config = configure(problems={"sources": sources}, evaluation={"rewards": [scorer | {"name": "own"}]})
    found = [found for found in doctor_rewards.check_rewards(config) if found.name == "reward own"]
    assert found == [
        Finding("reward own", "fail", "checker reasoning_gym cannot score a.jsonl", "use checker: exact or math")
    ]


@pytest.mark.parametrize(
    ("path", "status"), [("model", "ok"), ("policy", "fail"), ("someone/reward-model", "warn"), ("./none", "fail")]
)
def test_frozen_reward_model_is_looked_for(path: str, status: str, configure: Configure) -> None:
    save_tiny_model(Path("policy"))
    save_model(Path("model"), build_tiny_tokenizer())
    config = configure(reward_models={"taste": {"kind": "frozen", "path": path}})
    found = [found for found in doctor_rewards.check_rewards(config) if found.name == "reward model taste"]
    assert [check.status for check in found] == [status]


def test_batch_larger_than_the_training_problems_fails(configure: Configure) -> None:
    config = configure(grpo_config={"batch_size": 64})
    assert doctor_checks.check_batches(config, 16).status == "ok"
    found = doctor_checks.check_batches(config, 15)
    assert found.detail == "a batch asks 16 problems (batch_size / group_size) and 15 are left to train on"
    assert found.status == "fail"


def test_a_method_on_pairs_has_as_many_as_the_regeneration_has_problems(configure: Configure) -> None:
    config = configure(method={"kind": "ipo", "batch_size": 24, "epochs": 2})
    found = doctor_checks.check_batches(config, 0)
    assert found.status == "ok"
    assert found.detail.startswith("at most 40 pairs of 40 problems and 4 updates a round")  # 80 / 24


def test_offline_best_of_n_goes_over_what_it_keeps_as_often_as_it_says(configure: Configure) -> None:
    config = configure(method={"kind": "best_of_n", "mode": "offline", "epochs": 3})
    found = doctor_checks.check_batches(config, 28)
    # 6 x 4 problems are asked; 3 x 24 / 4 updates
    assert found.detail == "at most 24 responses are kept, one of each problem, for 18 updates a round"


def test_sizes_that_a_method_on_pairs_does_not_read_are_named(configure: Configure) -> None:
    """grpo_config.learning_rate looks like DPO's, which is method.learning_rate."""
    assert not list(doctor_checks.check_sizes(configure()))
    [found] = doctor_checks.check_sizes(configure(method={"kind": "dpo"}))
    assert found.status == "ok"
    assert found.detail == (
        "dpo does not read grpo_config's group_size=4, learning_rate=0.001, batch_size=16, temperature=1.0, max_updates=6, "
        "monitor_kl_every=2: it has settings of its own"
    )


def test_accelerates_own_configuration_has_to_be_there(configure: Configure) -> None:
    config = configure(launcher={"kind": "accelerate", "config_file": "cluster.yaml"})
    [found] = doctor_checks.check_launcher(config)
    assert (found.status, found.detail) == ("fail", "no file cluster.yaml")
    Path("cluster.yaml").touch()
    assert not list(doctor_checks.check_launcher(config))


def test_the_rendezvous_of_several_machines_is_looked_up(configure: Configure) -> None:
    several = {"kind": "torchrun", "num_processes": 2, "num_machines": 2}
    assert not list(doctor_checks.check_launcher(configure(launcher=several | {"rendezvous": "127.0.0.1:29400"})))
    for host, status, told in [("nowhere.invalid", "fail", "cannot be reached"), ("192.0.2.1", "warn", "none of this")]:
        [found] = doctor_checks.check_launcher(configure(launcher=several | {"rendezvous": f"{host}:29400"}))
        assert found.status == status
        assert told in found.detail


WHERE = "compute_environment: LOCAL_MACHINE\ndebug: false\nuse_cpu: true\nnum_machines: 1\nmixed_precision: 'no'\ntpu_env: []\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n", "distributed_type: FSDP"),
        ("distributed_type: DEEPSPEED\n", "distributed_type: DEEPSPEED"),
        ("distributed_type: MEGATRON_LM\n", "distributed_type: MEGATRON_LM"),
        ("distributed_type: MULTI_CPU\nfsdp_config: {fsdp_version: 2}\n", "fsdp_config: {'fsdp_version': 2}"),
        ("distributed_type: MULTI_GPU\nparallelism_config: {tp_size: 2}\n", "parallelism_config: {'tp_size': 2}"),
        ("mixed_precision: bf16\n", "mixed_precision: bf16"),
        ("dynamo_config: {dynamo_backend: INDUCTOR}\n", "dynamo_config: {'dynamo_backend': 'INDUCTOR'}"),
    ],
)
def test_a_file_for_accelerate_that_asks_for_what_is_not_done_is_refused(
    configure: Configure, text: str, told: str
) -> None:
    """FSDP was ignored in silence: each rank held the whole model, and training went on until memory ran out."""
    Path("cluster.yaml").write_text(text, encoding="utf-8")
    config = configure(launcher={"kind": "accelerate", "config_file": "cluster.yaml"})
    [found] = doctor_checks.check_launcher(config)
    assert found.status == "fail"
    assert f"launcher.config_file=cluster.yaml asks for {told}, which Regroup does not do" in found.detail
    with pytest.raises(ConfigError, match="which Regroup does not do; take it out"):
        refuse_faulty(config, Path.cwd())


@pytest.mark.parametrize("kind", ["'NO'", "MULTI_CPU", "MULTI_GPU"])
def test_a_file_for_accelerate_that_says_where_ranks_run_is_taken(configure: Configure, kind: str) -> None:
    Path("cluster.yaml").write_text(
        f"{WHERE}distributed_type: {kind}\ndynamo_config: {{dynamo_backend: 'no'}}\n", encoding="utf-8"
    )
    assert not list(
        doctor_checks.check_launcher(configure(launcher={"kind": "accelerate", "config_file": "cluster.yaml"}))
    )


@pytest.mark.parametrize("kind", ["NO", "MULTI_CPU"])
def test_ranks_that_accelerate_would_not_start_are_refused(configure: Configure, kind: str) -> None:
    """It starts one process in silence, and the run would take as long as without the others."""
    Path("cluster.yaml").write_text(f"distributed_type: '{kind}'\nnum_processes: 2\n", encoding="utf-8")
    launcher = {"kind": "accelerate", "config_file": "cluster.yaml"}
    [found] = doctor_checks.check_launcher(configure(launcher=launcher | {"num_processes": 2}))
    assert found.status == "fail"
    assert f"cluster.yaml starts one process (distributed_type: {kind}), and launcher.num_processes=2" in found.detail
    Path("cluster.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n", encoding="utf-8")
    assert not list(doctor_checks.check_launcher(configure(launcher=launcher | {"num_processes": 2})))


def test_reward_model_that_can_never_have_enough_pairs_fails(configure: Configure) -> None:
    labeler = {"kind": "trained", "labeler": {"kind": "score"}}
    # 40 problems x (1 - 0.25) x 4 pairs = 120
    enough, few = ({"taste": labeler | {"min_pairs": n}} for n in (120, 121))
    assert [c.status for c in doctor_checks.check_pairs(configure(reward_models=enough))] == ["ok"]
    assert [c.status for c in doctor_checks.check_pairs(configure(reward_models=few))] == ["fail"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("builtin:tiny", "ok", "begins from builtin:tiny"),
        ("./no/such/folder", "fail", "reward_models.taste.backbone.path=./no/such/folder does not exist"),
        ("some/model", "warn", "some/model is no folder here"),
    ],
)
def test_a_backbone_is_looked_for_before_the_run(configure: Configure, path: str, status: str, said: str) -> None:
    model = {"kind": "trained", "labeler": {"kind": "score"}, "backbone": {"path": path}}
    checks = doctor_rewards.check_rewards(configure(reward_models={"taste": model}))
    [check] = [check for check in checks if check.name == "reward model taste"]
    assert check.status == status
    assert said in check.detail


def test_a_preference_file_is_told_with_what_is_left_out(configure: Configure, workspace: Path) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(40)]
    turned, equal = {"prompt": "p7", "chosen": "b", "rejected": "a "}, {"prompt": "p8", "chosen": "a", "rejected": "a"}
    model = {
        "kind": "trained",
        "labeler": {"kind": "file", "path": "pairs.jsonl"},
        "min_pairs": 20,
        "held_out_share": 0.25,
    }

    def found(*added: dict[str, str], **fields: int) -> Finding:
        Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *added]))
        [check] = doctor_checks.check_pairs(configure(reward_models={"taste": model | fields}))
        return check

    # the hash puts 8 of the 40 prompts, p7 among them, on the held-out side
    assert (found().status, found().detail) == (
        "ok",
        "pairs.jsonl: 32 training and 8 held-out pairs, from 40 rows; left out: nothing",
    )
    contradicted = found(turned, equal)
    assert (contradicted.status, contradicted.detail) == (
        "warn",
        "pairs.jsonl: 32 training and 7 held-out pairs, from 42 rows; left out: 1 with a response equal to another one, "
        "2 that contradict another row",
    )
    assert "the majority of such labels is used" in contradicted.remedy
    few = found(turned, min_pairs=33)
    assert few.status == "fail"
    assert "32 training and 7 held-out pairs, under min_pairs=33, from 41 rows" in few.detail


def test_people_alone_must_be_asked_enough(configure: Configure) -> None:
    labeler = {"kind": "people", "num_items": 20}
    alone = {"taste": {"kind": "trained", "labeler": labeler, "min_pairs": 16}}  # 20 * (1 - 0.25) = 15 train
    [check] = doctor_checks.check_pairs(configure(reward_models=alone))
    assert check.status == "fail"
    assert "num_items, or set its otherwise" in check.remedy
    stand_in = labeler | {"otherwise": {"kind": "score"}}
    helped = {"taste": {"kind": "trained", "labeler": stand_in, "min_pairs": 16}}
    assert [c.status for c in doctor_checks.check_pairs(configure(reward_models=helped))] == ["ok"]


def test_promotion_metrics_are_the_columns_that_an_evaluation_has(configure: Configure) -> None:
    names = promotion_metrics(configure(evaluation={"num_samples": 6}), ["chain_sum"], is_mixed=False)
    assert {"greedy_accuracy", "pass_at_1", "pass_at_4", "maj_at_6", "greedy/correct", "sampled/brief"} <= set(names)
    assert not {"pass_at_6", "pass_at_8"} & set(names)


# ---- memory and disk ------------------------------------------------------------------------------------------------


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    assert num_parameters(tmp_path) == 86_976


def test_memory_is_weights_copies_cache_and_logits(configure: Configure) -> None:
    grpo = {"micro_batch_tokens": 256, "max_response_length": 16, "batch_size": 16, "monitor_kl_every": 2}
    config = configure(grpo_config=grpo, problems={"max_prompt_length": 112})
    settings = LlamaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    # cache: keys and values x 2 layers x 2 heads x 16 wide x 16 rows x 128 tokens x 4 bytes
    # activations: 34 x 2 layers x 64 wide x 256 tokens at twice two bytes; logits: 3 x 1024 positions x 100 x 4
    assert memory_needed(config, 1000, settings, low_precision=False) == {
        "training": 16_000,
        "copies": 4_000,
        "reward_models": 0,
        "cache": 1_048_576,
        "activations": 2_228_224,
        "logits": 1_228_800,
    }
    # sampler and the policy that KL is measured from, two bytes each
    assert memory_needed(config, 1000, settings, low_precision=True)["copies"] == 4_000


def test_ranks_that_split_the_policy_need_a_part_of_its_memory_each(configure: Configure) -> None:
    launcher = {"kind": "torchrun", "num_processes": 4, "shard": True}
    config = configure(
        launcher=launcher,
        grpo_config={"batch_size": 32, "group_size": 8, "vllm": {}, "kl_coefficient": 0.1, "monitor_kl_every": 0},
    )
    settings = LlamaConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True
    )
    needed = memory_needed(config, 1000, settings, low_precision=True)
    # a quarter of the training state and of the reference, no low-precision copy; gathered: 2 layers of 460 with their
    # gradients, two bytes each; of the embedding's 80 weights 20 in low precision, and their gradient
    assert (needed["training"], needed["copies"], needed["gathered"]) == (16 * 250, 2 * 250, 2 * 2 * 920 + (2 + 4) * 20)
    # what scales its logits gathers the embedding's weights with their gradients
    scaled = CohereConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True
    )
    assert memory_needed(config, 1000, scaled, low_precision=True)["gathered"] == 2 * 2 * (80 + 920)
    # four bytes of each weight, and while it scores all weights of a model of two layers
    scoring = LlamaConfig(vocab_size=10, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    with_models = memory_needed(config, 1000, settings, [(400, settings), (8000, scoring)], low_precision=True)
    assert (with_models["reward_models"], with_models["gathered"]) == (4 * 100 + 4 * 2000, 4 * 8000)


@pytest.mark.parametrize(("free", "total", "status"), [(1e9, 1e9, "ok"), (1e3, 1e9, "warn"), (1e3, 1e4, "fail")])
def test_memory_that_is_taken_warns_and_memory_that_is_not_there_fails(
    free: float, total: float, status: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model(Path("model"))
    monkeypatch.setattr(doctor_resources, "_memory", lambda device: (free, total))
    assert doctor_resources.check_memory(configure(), Path("model")).status == status


def test_disk_that_is_too_small_fails(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_model(Path("model"))
    # 2 rounds x (policy + reward model) + 1 = 5 models of 4 x 86,976 bytes, and 2 + 1 checkpoints of 12 x 86,976 bytes
    # a cold start makes one model more
    needed = (5 * 4 + 3 * 12) * 86_976
    plain, cold = configure(), configure(cold_start={"own_samples": {}})
    for config, enough in ((plain, needed), (cold, needed + 4 * 86_976)):
        for free, status in ((enough, "ok"), (enough - 1, "fail")):
            usage = type("Usage", (), {"free": free})
            monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
            assert doctor_resources.check_disk(config, Path("model"), Path()).status == status


@pytest.mark.parametrize("cold", [None, {"own_samples": {}}])
@pytest.mark.parametrize("method", [{"kind": "grpo"}, {"kind": "dpo"}])
def test_beside_an_adapter_trl_saves_the_whole_model(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], cold: dict[str, Any] | None
) -> None:
    save_tiny_model(Path("model"))
    adapter = 40_000
    monkeypatch.setattr(doctor_resources, "_num_trained", lambda config, folder: adapter)
    lora = {"lora": {"rank": 2}}
    reward_models = {name: model | lora for name, model in yaml.safe_load(TINY.read_text())["reward_models"].items()}
    config = configure(grpo_config=lora, method=method, cold_start=cold, reward_models=reward_models)
    saved = 86_976 if method["kind"] == "dpo" or cold else adapter
    found = doctor_resources._checkpoint_bytes(config, Path("model"))
    assert found == 4 * saved + 8 * adapter


# ---- print ----------------------------------------------------------------------------------------------------------


def test_findings_are_shown_with_their_remedies() -> None:
    report = DoctorReport([Finding("data", "fail", "no column ['a']", "rename it"), Finding("disk", "ok", "1 GB")])
    page = StringIO()
    Console(width=60, file=page).print(render(report))
    text = page.getvalue()
    assert "no column ['a']" in text
    assert "-> rename it" in text
    assert report.failures == "data: no column ['a']; rename it"


def test_doctor_command_prints_findings_and_the_time_of_a_round(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(TINY)]) == 0
    out = capsys.readouterr().out
    assert "gold answers, correct" in out
    assert "a round takes up to about" in out


def test_of_a_comparison_each_method_is_checked_and_what_they_share_is_said_once(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(ROOT / "configs" / "compare.yaml")
    assert main(["doctor", config, "--no-sample"]) == 0
    told = capsys.readouterr().out
    methods = [line for line in told.splitlines() if line.startswith("method ")]
    assert [line.split()[1].rstrip(":") for line in methods] == ["grpo", "rloo", "reinforce", "ppo", "best_of_n"]
    assert "method rloo: as those before" in methods
    assert "method ppo" in methods, "it has a value model"
    assert told.count("chat template") == 1
    assert "for the 10 models that 10 runs keep" in " ".join(told.split())


def test_a_method_that_fails_a_check_fails_the_doctor_of_a_comparison(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "faulty.yaml").write_text((ROOT / "configs" / "compare.yaml").read_text())
    override = "compare.methods.rloo.grpo_config.lora.target_modules=[no_such_layer]"
    assert main(["doctor", "faulty.yaml", "--no-sample", "--set", override]) == 2
    assert "no_such_layer" in capsys.readouterr().err


def test_a_method_of_a_comparison_that_learns_from_pairs_is_sampled_too(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = yaml.safe_load((ROOT / "configs" / "compare.yaml").read_text())
    given["compare"]["methods"] = {"grpo": {}, "rloo": {"method": {"kind": "rloo"}}, "dpo": {"method": {"kind": "dpo"}}}
    (workspace / "pairs.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    assert main(["doctor", "pairs.yaml"]) == 0
    told = capsys.readouterr().out
    assert [line.split()[-1] for line in told.splitlines() if line.startswith("what follows is sampled by")] == [
        "grpo",
        "dpo",
    ]
    assert "make a pair" in " ".join(told.split())


def test_a_comparison_whose_runs_keep_more_than_the_disk_has_is_refused(
    workspace: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "model"
    save_tiny_model(folder)
    needed = doctor_resources.SAVED_BYTES * num_parameters(folder)
    free = SimpleNamespace(free=5 * needed)
    monkeypatch.setattr(doctor_resources.shutil, "disk_usage", lambda path: free)
    every = configure(rounds=2)  # a policy and a reward model in each round
    last = every.model_copy(update={"run": every.run.model_copy(update={"keep_rounds": 1})})
    assert doctor_resources.check_disk_of_runs([last] * 2, folder, workspace).status == "ok"
    refused = doctor_resources.check_disk_of_runs([every] * 2, folder, workspace)
    assert refused.status == "fail"
    assert "for the 8 models that 2 runs keep" in refused.detail
    assert "run.keep_rounds: 1" in refused.remedy
