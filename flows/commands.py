"""The commands that run no Prefect flow: `status`, `sample`, `export`, `report` and `fetch`."""

import shutil
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs.disk.checkpoints import CHECKPOINTS, last_saved_step
from configs.disk.files import MANIFEST, digest_json
from configs.errors import ConfigError
from configs.reader import load_config
from configs.records import Policy, Problem
from flows.prefect_server import making_database
from flows.summary import finished_summary, run_champion
from tasks.runs.run_file import read_run, run_names, stored_config
from tasks.runs.run_records import RunRecords, read_run_records
from tasks.runs.workspace import lock_holder, models_folder, read_champion, run_folder
from tasks.showing.terminal import Terminal
from tasks.tracking.server import make_tracking_database

# ---- status ---------------------------------------------------------------------------------------------------------


def show_status(root: Path) -> None:
    """Print the table of runs, the champion, the run that holds the workspace, and disk use."""
    terminal = Terminal()
    names = run_names(root)
    if not names:
        terminal.print(f"no runs in {root / 'runs'}; start one with: regroup run CONFIG")
        return
    holder = lock_holder(root)
    terminal.print(_runs_table(root, names, running=holder.run if holder else None))
    champion = read_champion(root)
    if champion:
        terminal.print(f"champion   {champion.policy_id[:12]} from run {champion.run}, round {champion.round}")
    held = f"run {holder.run}, process {holder.pid}, since {holder.started}" if holder else "nobody"
    terminal.print(f"held by    {held}")
    terminal.print(f"disk       {_disk(root)}")


def _runs_table(root: Path, names: list[str], running: str | None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("run", "status", "last finished stage", "test accuracy", "size"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for name in names:
        records = read_run_records(run_folder(root, name))
        status = "running" if name == running else _status(root, records)
        table.add_row(name, status, _last_stage(records), _accuracy(records), _readable(_size(records.folder)))
    return table


def _status(root: Path, records: RunRecords) -> str:
    if finished_summary(root, records.name, records.config.rounds):
        return "done"
    training = [path.parent for path in records.folder.glob(f"round_*/**/{CHECKPOINTS}")]
    steps = [last_saved_step(stage) for stage in training]
    return f"interrupted, step {max(steps)}" if any(steps) else "interrupted"


def _last_stage(records: RunRecords) -> str:
    stages = [f"round {record.index} · {stage}" for record in records.rounds for stage in record.seconds]
    return stages[-1] if stages else "none"


def _accuracy(records: RunRecords) -> str:
    """Greedy accuracy on test of the policy that the run started from and of its champion, `0.412 -> 0.530`."""
    before, after = records.baseline, records.champion
    accuracies = [record.estimate("test", "greedy_accuracy") if record else None for record in (before, after)]
    return " -> ".join("?" if value is None else f"{value.estimate:.3f}" for value in accuracies)


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; a hard-linked file counts once."""
    sizes = {(stat.st_dev, stat.st_ino): stat.st_size for path in folder.rglob("*") if (stat := path.lstat())}
    return sum(sizes.values())


def _readable(num_bytes: float) -> str:
    """A size with its unit, for instance `3.2 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def _disk(root: Path) -> str:
    folders = [root / name for name in ("runs", "models", "mlartifacts", ".prefect")]
    used = [f"{folder.name} {_readable(_size(folder))}" for folder in folders if folder.is_dir()]
    return ", ".join([*used, f"free {_readable(shutil.disk_usage(root).free)}"])


# ---- results of a run -----------------------------------------------------------------------------------------------


def champion_of(root: Path, name: str) -> Policy:
    """The champion of a run.

    Raises:
        ConfigError: there is no such run, or it has no policy yet.
    """
    if read_run(root, name).given_policy is None:
        raise ConfigError(f"run {name!r} has no policy yet; go on with it by `regroup run` first")
    return run_champion(read_run_records(run_folder(root, name)))


def export_champion(root: Path, name: str, folder: Path) -> None:
    """Copy the champion's weights, tokenizer and configuration to a new folder, from which `generate` does what was measured.

    Its chat template gets the run's variables as defaults, so that it renders as was measured; not the run's date.

    Raises:
        ConfigError: the folder exists, or `champion_of` finds no champion.
    """
    from grpo_train.policies.model import load_tokenizer, write_greedy_generation

    champion = champion_of(root, name)
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name a folder that does not")
    shutil.copytree(champion.path, folder, ignore=shutil.ignore_patterns(CHECKPOINTS, MANIFEST))
    settings = stored_config(read_run(root, name)).template_settings.model_copy(update={"date": None})
    tokenizer = load_tokenizer(folder, settings)
    if tokenizer.chat_template != load_tokenizer(folder).chat_template:
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
    from reward_training.transformer.precision import pick_device

    champion, config = champion_of(root, name), stored_config(read_run(root, name))
    model, tokenizer = load_policy(champion.path, device=pick_device(), template=config.template_settings)
    length = max_tokens or config.grpo_config.max_response_length
    asked = build_prompt(prompt, config.problems, has_chat_template=tokenizer.chat_template is not None)
    problem = Problem(key=digest_json(prompt), prompt=asked, answer="", source="terminal", split="asked")
    sampling = Sampling(group_size=1, temperature=temperature, max_response_length=length)
    [completion] = sample(model, tokenizer, [problem], sampling, seed=config.seed, policy_id=champion.id)
    Terminal().print_path(completion.text.strip() or "(an empty response)")


def write_run_report(root: Path, name: str) -> None:
    """Rewrite report.html from the files of the run and print its path."""
    from tasks.showing.report import write_report

    read_run(root, name)
    Terminal().print_path(write_report(run_folder(root, name)))


def fetch_policy(path: Path, overrides: tuple[str, ...]) -> None:
    """Put the backbones of the reward models and the policy into local folders, print these, and create the databases
    of Prefect and MLflow."""
    config, root = load_config(path, list(overrides)), Path.cwd()
    backbones = [model.backbone for model in config.trained_reward_models.values() if model.backbone is not None]
    with making_database(root):
        from grpo_train.policies.model_source import prepare_policy

        make_tracking_database(root)
        for source in (*backbones, config.policy):
            Terminal().print_path(prepare_policy(source, models_folder(root)).path)
