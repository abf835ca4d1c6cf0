"""What a scheduled run works on: an interrupted run of the chain if there is one, else a follow-on of its last run.

The chain of `tiny` is `tiny`, `tiny-0002`, `tiny-0003`, ...
"""

import re
from pathlib import Path

from prefect import flow
from prefect.states import State

from configs.records import Policy
from configs.schema import Config, RunConfig
from configs.seeds import seed_for
from flows.align import cancelled_when_stopped, work_alone
from flows.summary import Summary, finished_summary
from tasks.run import ModelRef, RunFile, create_run, follow_on_name, open_run, read_run, run_name, run_names
from tasks.run_records import read_run_records
from tasks.workspace import read_champion, run_folder

NUMBERED = re.compile(r"-(\d{4})$")


@flow(name="align-next")
def align_next(config: Config) -> Summary | State:
    """Finish the interrupted run of the chain, or start a follow-on from the champion."""
    root = Path.cwd()
    return cancelled_when_stopped(lambda: work_alone(root, run_name(config), lambda: next_run(root, config)))


def next_run(root: Path, config: Config) -> RunFile:
    """The run to work on; the caller holds the workspace."""
    chain = runs_of_chain(root, run_name(config))
    unfinished = [file for file in chain if finished_summary(root, file.name, file.config["rounds"]) is None]
    if unfinished:
        return unfinished[0]
    return follow_on(root, config, chain[-1]) if chain else open_run(root, config)


def runs_of_chain(root: Path, name: str) -> list[RunFile]:
    """The runs of one chain, oldest first."""
    base = re.escape(NUMBERED.sub("", name))
    return [read_run(root, other) for other in run_names(root) if re.fullmatch(rf"{base}(-\d{{4}})?", other)]


def follow_on(root: Path, config: Config, before: RunFile) -> RunFile:
    """A new run that goes on from the champion with seeds of its own; `initial_policy` stays what it was."""
    name = follow_on_name(root, run_name(config))
    number = int(name[-4:])
    seed = seed_for(config.seed, "follow-on", index=number) % 2**31
    champion = read_champion(root)
    assert champion is not None, "a finished run has a champion"
    return create_run(
        root,
        config.model_copy(update={"run": RunConfig(name=name), "seed": seed}),
        predecessor=before.name,
        initial_policy=before.initial_policy,
        given_policy=Policy(path=champion.path, id=champion.policy_id, round=0),
        reward_models=last_accepted(root, before),
    )


def last_accepted(root: Path, file: RunFile) -> dict[str, ModelRef]:
    """By name the newest reward model of a run that was accepted, or the one that the run started with."""
    models = dict(file.reward_models)
    for round in read_run_records(run_folder(root, file.name)).rounds:
        for name, report in round.reward_models.items():
            if report.accepted:
                models[name] = ModelRef(id=report.id, path=report.path)
    return models
