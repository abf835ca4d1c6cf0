"""The command `regroup`. Each command's work is in a module that is imported when the command runs, so that help is quick.

Exit codes: 0 done; 2 configuration or data at fault; 3 another run holds the workspace; 130 stopped at a step boundary;
1 the work failed.
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
    tuple[str, ...], Parameter(name="--set", negative="", help="change a field of the configuration: a.b=value")
]
RunName = Annotated[str | None, Parameter(name="--run", help="name of the run; default: the configuration's")]
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
    """Start a run, or go on with it where it stopped.

    The last line on standard output is the path of summary.json.
    """
    from flows.launch import run_to_the_end

    run_to_the_end(config, set_, run_name)


@app.command
def status() -> None:
    """Show runs, their stage, the champion, who holds the workspace, and disk use."""
    from flows.commands import show_status

    show_status(Path.cwd())


@app.command
def doctor(config: ConfigFile, *, set_: Overrides = (), sample: bool = True) -> None:
    """Check files, model, data, rewards and memory before a run; sample some problems to see what training would meet, and
    estimate the time of a round.

    Parameters
    ----------
    sample
        Sample with the policy; without it nothing is said of pass rates, rewards and time.
    """
    from flows.doctor.report import run_doctor

    run_doctor(config, set_, sample=sample)


@app.command
def fetch(config: ConfigFile, *, set_: Overrides = ()) -> None:
    """Make the model ready, so that a run needs no network, and Prefect's and MLflow's databases, so that it starts sooner."""
    from flows.commands import fetch_policy

    fetch_policy(config, set_)


@app.command
def serve(
    config: ConfigFile,
    *,
    cron: Annotated[str, Parameter(help='when to run, for instance "0 2 * * *"')],
    set_: Overrides = (),
) -> None:
    """Run on a schedule: each time finish an interrupted run, or start a follow-on from the champion."""
    from flows.serve import serve_config

    serve_config(config, set_, cron)


@app.command
def reward_model(config: ConfigFile, *, set_: Overrides = (), run_name: RunName = None) -> None:
    """Retrain a run's reward models by hand on its pairs so far; its next round starts from them. Those that a file labels need no run."""
    from flows.launch import retrain_by_hand

    retrain_by_hand(config, set_, run_name)


@app.command
def evaluate(config: ConfigFile, *, set_: Overrides = (), run_name: RunName = None) -> None:
    """Measure the champion of a run, or the configured policy before the first run, on dev and test."""
    from flows.launch import evaluate_champion

    evaluate_champion(config, set_, run_name)


@app.command
def sample(
    run: Annotated[str, Parameter(help="name of the run")],
    prompt: Annotated[str, Parameter(help="what to ask; the run's template is put around it")],
    *,
    temperature: Annotated[float, Parameter(help="0 takes the likeliest token each time")] = 0.0,
    max_tokens: Annotated[int | None, Parameter(help="default: the run's max_response_length")] = None,
) -> None:
    """Ask a run's champion."""
    from flows.commands import sample_champion

    sample_champion(Path.cwd(), run, prompt, temperature=temperature, max_tokens=max_tokens)


@app.command
def export(
    run: Annotated[str, Parameter(help="name of the run")],
    folder: Annotated[Path, Parameter(help="new folder, for from_pretrained")],
) -> None:
    """Write a run's champion to a folder that transformers' from_pretrained reads."""
    from flows.commands import export_champion

    export_champion(Path.cwd(), run, folder)


@app.command
def report(run: Annotated[str, Parameter(help="name of the run")]) -> None:
    """Write a run's report.html anew and say where it is."""
    from flows.commands import write_run_report

    write_run_report(Path.cwd(), run)


@app.command
def ui(
    *,
    port: Annotated[int, Parameter(help="of MLflow's page; another one is taken where it is in use")] = 5000,
    prefect: Annotated[bool, Parameter(help="show Prefect's page too")] = True,
) -> None:
    """Show MLflow's and Prefect's pages on this machine until Ctrl-C."""
    from flows.serve import show_pages

    show_pages(Path.cwd(), port, with_prefect=prefect)


review = App(
    name="review",
    help="People's labels: what they are asked, as a file to fill in, and their answers.",
    help_format="plaintext",
)
app.command(review)


@review.command(name="status")
def review_status() -> None:
    """Show what people were asked, run by run, and how much of it is answered."""
    from flows.review import show_review

    show_review(Path.cwd())


@review.command(name="export")
def review_export(
    file: Annotated[Path, Parameter(help="new file, .csv or .jsonl")],
    *,
    run_name: Annotated[str | None, Parameter(name="--run", help="of this run only")] = None,
) -> None:
    """Write what nobody has answered yet to a file, the most disputed first; fill in its column `choice`."""
    from flows.review import export_items

    export_items(Path.cwd(), file, run_name)


@review.command(name="import")
def review_import(
    file: Annotated[Path, Parameter(help="a filled-in export")],
    *,
    person: Annotated[str | None, Parameter(help="who answered, where the file's column `person` is empty")] = None,
) -> None:
    """Take in answers: `first`, `second` or `equal` in column `choice`; rows without one are left for later."""
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
    except Exception as error:  # noqa: BLE001 - the process ends here, with the code that says so
        return _explain(error)
    return DONE


def _explain(error: Exception) -> int:
    """The message where the story is in a log file, otherwise all of it."""
    notes: list[str] = getattr(error, "__notes__", [])
    if not notes:
        traceback.print_exception(error)
    return _complain("\n".join([f"{type(error).__name__}: {error}", *notes]), FAILED)


def _complain(text: str, code: int) -> int:
    print(f"regroup: {text}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
