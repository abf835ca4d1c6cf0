"""The command `status`. It imports little, so that it is quick."""

import shutil
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tasks.runs.progress import Progress, all_progress, readable, sizes_below, unreadable_runs
from tasks.runs.workspace import Holder, lock_holder, read_champion
from tasks.showing.terminal import Terminal


def show_status(root: Path) -> None:
    """Print the table of runs, the champion, the run that holds the workspace, and disk use."""
    terminal = Terminal()
    runs, holder = all_progress(root), lock_holder(root)
    for name in unreadable_runs(root):
        terminal.warn(f"runs/{name}/run.json holds no run; put it back, or move the folder away")
    if not runs:
        terminal.print(f"no runs in {root / 'runs'}; start one with: regroup run CONFIG")
        return
    terminal.print(_runs_table(runs, holder))
    champion = read_champion(root)
    if champion:
        terminal.print(f"champion   {champion.policy_id[:12]} from run {champion.run}, round {champion.round}")
    for run in runs:
        if run.rolled_back:
            terminal.print_path(f"run {run.name} was {run.rolled_back}")
    held = f"{holder}, process {holder.pid}, since {holder.started}" if holder else "nobody"
    terminal.print(f"held by    {held}")
    terminal.print(f"disk       {_disk(root, runs)}")


def _runs_table(runs: list[Progress], holder: Holder | None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("run", "status", "last finished stage", "test accuracy", "size"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for run in runs:
        size = readable(sum(run.sizes.values()))
        table.add_row(run.name, _status(run, holder), run.last_stage or "none", _accuracy(run), size)
    return table


def _status(run: Progress, holder: Holder | None) -> str:
    if holder is not None and (holder.run, holder.command) == (run.name, "run"):
        return "running"
    if run.finished:
        return "done, rolled back" if run.rolled_back else "done"
    return f"interrupted, step {run.step}" if run.step else "interrupted"


def _accuracy(run: Progress) -> str:
    """Of the policy that the run started from and of its champion, `0.412 -> 0.530`."""
    return " -> ".join("?" if value is None else f"{value:.3f}" for value in run.accuracies)


def _disk(root: Path, runs: list[Progress]) -> str:
    used = [("runs", {key: size for run in runs for key, size in run.sizes.items()})]
    used += [
        (name, sizes_below(root / name)) for name in ("models", "mlartifacts", ".prefect") if (root / name).is_dir()
    ]
    shown = [f"{name} {readable(sum(sizes.values()))}" for name, sizes in used]
    return ", ".join([*shown, f"free {readable(shutil.disk_usage(root).free)}"])
