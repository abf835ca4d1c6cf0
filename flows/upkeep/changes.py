"""The commands `clean` and `rollback`, which change what runs left behind."""

from pathlib import Path

from flows.summary import champion_shown, read_summary, write_summary
from tasks.running.cleaning import Piece, Plan, carry_out, plan_cleaning, with_artifacts
from tasks.runs.facts import load
from tasks.runs.progress import readable
from tasks.runs.rollbacks import roll_back
from tasks.runs.run_file import read_run, run_names, stored_config
from tasks.runs.run_records import read_run_records
from tasks.runs.workspace import run_folder, workspace_lock
from tasks.showing.report import write_report
from tasks.showing.terminal import Terminal
from tasks.tracking.outbox import TRACKING, RunTracking
from tasks.tracking.tracker import Tracking

DEFAULT_KEEP_ROUNDS = 1

# ---- clean ----------------------------------------------------------------------------------------------------------


def clean_workspace(root: Path, run: str | None, *, keep_rounds: int | None, artifacts: bool, dry_run: bool) -> None:
    """Remove what nothing needs any more, of one run or of all, and print what goes, what stays and why.

    Raises:
        ConfigError: there is no such run.
        WorkspaceBusy: another process holds the workspace.
    """
    names, terminal = run_names(root) if run is None else [read_run(root, run).name], Terminal()
    if not names:
        terminal.print(f"no runs in {root / 'runs'}; there is nothing to clean")
        return
    with workspace_lock(root, names[-1], command="clean"):
        keep = keep_rounds or stored_config(read_run(root, names[-1])).run.keep_rounds or DEFAULT_KEEP_ROUNDS
        plan = plan_cleaning(root, keep_rounds=keep, only=run)
        plan = with_artifacts(root, plan) if artifacts else plan
        for line in told(root, plan):
            terminal.print_path(line)
        terminal.print_path(f"{'would free' if dry_run else 'frees'}  {plan}")
        if not dry_run:
            carry_out(plan)


def told(root: Path, plan: Plan) -> list[str]:
    """A line for each piece: whether it stays or goes, its size, and why."""

    def line(verb: str, piece: Piece) -> str:
        path = piece.path.relative_to(root) if piece.path.is_relative_to(root) else piece.path
        return f"{verb:5}  {readable(sum(piece.sizes.values())):>8}  {path}: {piece.why}"

    return [*(line("stays", piece) for piece in plan.stays), *(line("goes", piece) for piece in plan.goes)]


# ---- rollback -------------------------------------------------------------------------------------------------------


def roll_back_promotion(root: Path, run: str, *, to_round: int | None, reason: str) -> None:
    """Make an earlier champion champion again, on disk, in summaries and reports, and in MLflow.

    Raises:
        ConfigError: there is no such run, or no such champion.
        WorkspaceBusy: another process holds the workspace.
    """
    terminal = Terminal()
    read_run(root, run)
    with workspace_lock(root, run, command="rollback"):
        before, champion, touched = roll_back(root, run, to_round=to_round, reason=reason)
        for name in touched:
            _show_again(root, name)
            _tell_mlflow(root, name, terminal)
    terminal.print_path(f"champion   {champion.policy_id[:12]} from run {champion.run}, round {champion.round}")
    terminal.print_path(f"instead of {before.policy_id[:12]} from run {before.run}, round {before.round}")
    terminal.print_path(f"undo it by regroup rollback {before.run} --to {before.round}")


def _show_again(root: Path, name: str) -> None:
    """Write summary and report of a run anew, if it has ended before."""
    summary, records = read_summary(root, name), read_run_records(run_folder(root, name))
    if summary is None:
        return
    shown = champion_shown(root, records)
    write_summary(root, summary | {"champion": shown, "rollbacks": [str(back) for back in records.rollbacks]})
    write_report(records.folder)


def _tell_mlflow(root: Path, name: str, terminal: Terminal) -> None:
    """Send what changed; if the server is away, the next run of the chain does."""
    file, folder = read_run(root, name), run_folder(root, name)
    if (sent := load(folder / TRACKING, RunTracking)) is None:
        return
    config = stored_config(file)
    Tracking(root, folder, name=name, uid=file.uid, config=config, warn=terminal.warn).finish(sent.status)
