"""The command line `regroup`. A command imports the module that does its work when it is called, so `--help` is fast.

Exit codes: 0 done; 1 failed; 2 the command line, configuration or data is faulty; 3 another run holds the workspace;
130 stopped at a step boundary.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder before our modules and Python's

import errno
import shutil
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, validators

from configs.errors import ConfigError, StageStopped, WorkspaceBusy
from flows.stopping import sigterm_as_ctrl_c

DONE, FAILED, AT_FAULT, BUSY, STOPPED = 0, 1, 2, 3, 130

Overrides = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", help="override a field of the configuration: a.b=value")
]
RunName = Annotated[str | None, Parameter(name="--run", help="name of the run; default: run.name of the configuration")]
ConfigFile = Annotated[Path, Parameter(help="YAML file; presets are in configs/")]

app = App(
    name="regroup",
    help="Align a language model in rounds: GRPO with reward models that are retrained between rounds.",
    version=lambda: version("regroup"),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    help_format="plaintext",
)


@app.command
def run(config: ConfigFile, *, set_: Overrides = (), run_name: RunName = None) -> None:
    """Start a run, or resume it where it stopped.

    The last line on standard output is the path of summary.json.
    """
    from flows.launch import run_to_the_end

    run_to_the_end(config, set_, run_name)


@app.command
def compare(config: ConfigFile, *, set_: Overrides = (), run_name: RunName = None) -> None:
    """Compare methods of training at the same budget and with the same seeds, or go on with that where it stopped.

    CONFIG has a block `compare` beside the others. The last line on standard output is the path of comparison.json.
    """
    from flows.launch import compare_methods

    compare_methods(config, set_, run_name)


@app.command
def join(run: Annotated[str, Parameter(help="name of the run; it may not have begun yet")]) -> None:
    """Take part in the trainings of a run on another machine, which sees the same folder, until the run is finished.

    `launcher.num_machines` of its configuration says how many machines there are, the one with `regroup run` included. It is
    started once on each of the others, in the workspace.
    """
    from flows.launch import join_run

    join_run(Path.cwd(), run)


@app.command
def status() -> None:
    """Show the runs and their progress, the champion, which run holds the workspace, and disk use."""
    from flows.upkeep.status import show_status

    show_status(Path.cwd())


@app.command
def doctor(
    config: Annotated[Path | None, Parameter(help="YAML file; presets are in configs/")] = None,
    *,
    set_: Overrides = (),
    sample: bool = True,
    data: str | None = None,
    data_name: str | None = None,
    data_split: str | None = None,
) -> None:
    """Check configuration, model, data, rewards, memory and disk before a run. Also sample some training problems, to
    show pass rates and reward ranges, and estimate the time of a round.

    With `--data`, look at data instead: say what its columns hold, propose the block of a configuration that brings
    it in, and show three problems or pairs.

    Parameters
    ----------
    sample
        Sample from the policy; without it pass rates, reward ranges and time are left out.
    data
        File, folder or hub id of a data set to look at; prompts are rendered for the policy of CONFIG, if that is given.
    data_name
        Configuration of that data set.
    data_split
        Split of that data set; default: train.
    """
    if data is not None:
        from flows.doctor.data.report import Place, data_doctor

        data_doctor(Place(data, data_name, data_split), config, set_)
        return
    if config is None:
        raise ConfigError("name the configuration to check, or the data to look at by --data PATH")
    from flows.doctor.report import run_doctor

    run_doctor(config, set_, sample=sample)


@app.command
def fetch(config: ConfigFile, *, set_: Overrides = ()) -> None:
    """Download or build the models, and download wheels with data, in advance, so that a run needs no network for them, and
    create the databases of Prefect and MLflow, so that it starts faster."""
    from flows.commands import fetch_policy

    fetch_policy(config, set_)


@app.command
def serve(
    config: ConfigFile,
    *,
    cron: Annotated[
        str | None, Parameter(help='when to run, for instance "0 2 * * *"; may be left out with --pool')
    ] = None,
    timezone: Annotated[
        str | None, Parameter(help="time zone of --cron, for instance Europe/Berlin; default: this machine's")
    ] = None,
    pool: Annotated[
        str | None,
        Parameter(help="work pool of Prefect whose workers do the runs; this command then only registers them"),
    ] = None,
    set_: Overrides = (),
) -> None:
    """Run on a schedule: each time, finish the interrupted run, or start a follow-on run from the champion.

    A run whose time comes while another one works in this folder is skipped.
    """
    from flows.serve import serve_config

    serve_config(config, set_, cron, timezone, pool)


@app.command
def vllm(
    config: ConfigFile,
    *,
    set_: Overrides = (),
    print_: Annotated[
        bool, Parameter(name="--print", negative="", help="only print the commands, for other machines")
    ] = False,
    venv: Annotated[
        Path | None, Parameter(help="environment with vLLM; default: REGROUP_VLLM_VENV, or the one of `make vllm`")
    ] = None,
    also: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True, help='more options for each server, for instance "--tensor-parallel-size 2"'
        ),
    ] = "",
) -> None:
    """Start the vLLM servers of a configuration on this machine, with the options that it needs, and watch them until
    Ctrl-C: one that ends or hangs is started again.

    `regroup run CONFIG` in another terminal uses them. `make vllm` makes their environment.
    """
    from flows.engines.command import serve_models

    serve_models(config, set_, venv=venv, also=also, only_print=print_)


@app.command
def alerts(
    config: Annotated[Path | None, Parameter(help="YAML file with the receivers to test")] = None,
    *,
    test: Annotated[bool, Parameter(negative="", help="send a message to each receiver of CONFIG")] = False,
    set_: Overrides = (),
) -> None:
    """Show what happened in this folder's runs and which receivers were not told yet; or test the receivers of a
    configuration: `regroup alerts CONFIG --test`."""
    from tasks.alerting.command import show_alerts, try_receivers

    if config is not None and test:
        try_receivers(config, set_, Path.cwd())
    elif config is not None or test:
        raise ConfigError("a configuration and --test go together: regroup alerts CONFIG --test; or neither of them")
    else:
        show_alerts(Path.cwd())


@app.command
def reward_model(config: ConfigFile, *, set_: Overrides = (), run_name: RunName = None) -> None:
    """Retrain the reward models of a run on its pairs so far; its next round starts from them.

    Reward models that are labelled by a file can be trained before there is a run.
    """
    from flows.launch import retrain_by_hand

    retrain_by_hand(config, set_, run_name)


@app.command
def evaluate(config: ConfigFile, *, set_: Overrides = (), run_name: RunName = None) -> None:
    """Evaluate the champion of a run on dev and test; before a round is finished, the policy that it starts from."""
    from flows.launch import evaluate_champion

    evaluate_champion(config, set_, run_name)


@app.command
def sample(
    run: Annotated[str, Parameter(help="name of the run")],
    prompt: Annotated[str, Parameter(help="question; the run's prompt template is put around it")],
    *,
    temperature: Annotated[float, Parameter(help="sampling temperature; 0 is greedy decoding")] = 0.0,
    max_tokens: Annotated[int | None, Parameter(help="most tokens; default: the run's max_response_length")] = None,
) -> None:
    """Print the response of a run's champion to a question."""
    from flows.commands import sample_champion

    sample_champion(Path.cwd(), run, prompt, temperature=temperature, max_tokens=max_tokens)


@app.command
def export(
    run: Annotated[str, Parameter(help="name of the run")],
    folder: Annotated[Path, Parameter(help="new folder; must not exist yet")],
) -> None:
    """Export a run's champion to a folder that transformers' from_pretrained can load."""
    from flows.commands import export_champion

    export_champion(Path.cwd(), run, folder)


@app.command
def report(run: Annotated[str, Parameter(help="name of the run")]) -> None:
    """Rewrite report.html of a run and print its path."""
    from flows.commands import write_run_report

    write_run_report(Path.cwd(), run)


@app.command
def clean(
    run: Annotated[str | None, Parameter(help="only this run; default: all runs")] = None,
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="only say what would go, what stays and why")] = False,
    keep_rounds: Annotated[
        int | None,
        Parameter(
            help="newest rounds of each chain whose models stay; default: run.keep_rounds of the newest run, or 1",
            validator=validators.Number(gte=1),
        ),
    ] = None,
    artifacts: Annotated[
        bool,
        Parameter(
            negative="",
            help="also remove the same models among MLflow's local artifacts, whose versions cannot be loaded then; "
            "without it the disk gets nothing back of models that MLflow has too",
        ),
    ] = False,
) -> None:
    """Remove models, checkpoints and stray files that nothing needs any more; say what goes, what stays and why.

    Champions and the ones before them stay, what unfinished runs and the next follow-on start from, the newest rounds, and
    what MLflow was not sent yet. Pairs, measurements and reports always stay, and a cleaned stage stays finished.
    """
    from flows.upkeep.changes import clean_workspace

    clean_workspace(Path.cwd(), run, keep_rounds=keep_rounds, artifacts=artifacts, dry_run=dry_run)


@app.command
def rollback(
    run: Annotated[str, Parameter(help="name of the run whose promotion was wrong")],
    *,
    to: Annotated[int | None, Parameter(help="round whose policy becomes champion; default: the one before it")] = None,
    reason: Annotated[str, Parameter(help="why, for the records")] = "",
) -> None:
    """Take back a promotion: the champion before it is champion again, and the next follow-on starts from it.

    Nothing is deleted, so `--to` can go forward again.
    """
    from flows.upkeep.changes import roll_back_promotion

    roll_back_promotion(Path.cwd(), run, to_round=to, reason=reason)


@app.command
def ui(
    *,
    port: Annotated[int, Parameter(help="port of MLflow's page; if it is in use, a free port is taken")] = 5000,
    prefect: Annotated[bool, Parameter(help="also serve Prefect's page")] = True,
) -> None:
    """Serve the pages of MLflow and Prefect on this machine until Ctrl-C."""
    from flows.serve import show_pages

    show_pages(Path.cwd(), port, with_prefect=prefect)


review = App(
    name="review",
    help="Labels from people: show, export and import what they are asked.",
    help_format="plaintext",
)
app.command(review)


@review.command(name="status")
def review_status() -> None:
    """Show how many items people were asked about in each run and round, and how many are answered."""
    from flows.review import show_review

    show_review(Path.cwd())


@review.command(name="export")
def review_export(
    file: Annotated[Path, Parameter(help="new file, .csv or .jsonl")],
    *,
    run_name: Annotated[str | None, Parameter(name="--run", help="only items of this run; default: all runs")] = None,
) -> None:
    """Write the unanswered items to a file, the most disputed of each round first; fill in its column `choice`."""
    from flows.review import export_items

    export_items(Path.cwd(), file, run_name)


@review.command(name="import")
def review_import(
    file: Annotated[Path, Parameter(help="a filled-in export")],
    *,
    person: Annotated[
        str | None,
        Parameter(help="name of the person for rows whose column `person` is empty; default: the login name"),
    ] = None,
) -> None:
    """Read answers from a file: `first`, `second` or `equal` in the column `choice`; rows without one are skipped."""
    from flows.review import import_verdicts

    import_verdicts(Path.cwd(), file, person)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        with sigterm_as_ctrl_c():
            app(list(sys.argv[1:] if argv is None else argv))
    except CycloptsError as error:
        return _complain(f"{error}\nsee `regroup --help`", AT_FAULT)
    except ConfigError as error:
        return _complain(str(error), AT_FAULT)
    except WorkspaceBusy as error:
        return _complain(str(error), BUSY)
    except StageStopped as error:
        return _complain(f"{error}\nthe same command goes on from here", STOPPED)
    except KeyboardInterrupt:
        return _complain("ended by Ctrl-C or SIGTERM; the same command goes on from the last finished stage", STOPPED)
    except Exception as error:  # noqa: BLE001 - top level: every other error becomes exit code 1
        return _explain(error)
    return DONE


def _explain(error: Exception) -> int:
    """Print the message, and the traceback unless a note on the error names the log file with it; returns FAILED."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(Path.cwd()).free / 2**20
        remedy = f"{free:.0f} MiB are free in {Path.cwd()}; free some, and the same command goes on from here"
        return _complain(f"{error}\n{remedy}", FAILED)
    notes: list[str] = getattr(error, "__notes__", [])
    if not notes:
        traceback.print_exception(error)
    return _complain("\n".join([f"{type(error).__name__}: {error}", *notes]), FAILED)


def _complain(text: str, code: int) -> int:
    print(f"regroup: {text}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
