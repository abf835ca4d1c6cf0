"""The command line `regroup`. A command imports the module that does its work when it is called, so `--help` is fast.

Exit codes: 0 done; 1 failed; 2 the command line, configuration or data is faulty; 3 another run holds the workspace;
130 stopped at a step boundary.
"""

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from configs.errors import ConfigError, StageStopped, WorkspaceBusy

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
def status() -> None:
    """Show the runs and their progress, the champion, which run holds the workspace, and disk use."""
    from flows.commands import show_status

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
    """Download or build the models in advance, so that a run needs no network for them, and create the databases of
    Prefect and MLflow, so that it starts faster."""
    from flows.commands import fetch_policy

    fetch_policy(config, set_)


@app.command
def serve(
    config: ConfigFile,
    *,
    cron: Annotated[str, Parameter(help='when to run, for instance "0 2 * * *"')],
    set_: Overrides = (),
) -> None:
    """Run on a schedule: each time, finish the interrupted run, or start a follow-on run from the champion."""
    from flows.serve import serve_config

    serve_config(config, set_, cron)


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
    max_tokens: Annotated[
        int | None, Parameter(help="most tokens of the response; default: the run's max_response_length")
    ] = None,
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
        return _complain("ended by Ctrl-C; the same command goes on from the last finished stage", STOPPED)
    except Exception as error:  # noqa: BLE001 - top level: every other error becomes exit code 1
        return _explain(error)
    return DONE


def _explain(error: Exception) -> int:
    """Print the message, and the traceback unless a note on the error names the log file with it; returns FAILED."""
    notes: list[str] = getattr(error, "__notes__", [])
    if not notes:
        traceback.print_exception(error)
    return _complain("\n".join([f"{type(error).__name__}: {error}", *notes]), FAILED)


def _complain(text: str, code: int) -> int:
    print(f"regroup: {text}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
