"""Prefect artifacts of a run: the table of its rounds, and a link to its MLflow run."""

from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.summary import Summary
from tasks.running.run import Run
from tasks.showing.page import artifact_key


def show_rounds(run: Run, summary: Summary) -> None:
    """Create the artifact with the table of rounds."""
    create_table_artifact(
        key=artifact_key(f"{run.name}-rounds"),
        table=[_row(row) for row in summary["rounds"]],
        description=f"Rounds of run {run.name}",
    )


def link_to_mlflow(run: Run) -> None:
    """Create the artifact with the address of MLflow's parent run, or with its id if the store has no web address."""
    key, about = artifact_key(f"{run.name}-mlflow"), f"MLflow run of {run.name}"
    if run.tracking.run_url:
        create_link_artifact(key=key, link=run.tracking.run_url, link_text=about, description=about)
    else:
        text = f"{about}: `{run.tracking.run_id}` in `{run.tracking.stored_uri}`; `regroup ui` shows it"
        create_markdown_artifact(key=key, markdown=text, description=about)


def _row(row: Summary) -> dict[str, Any]:
    accuracies = {name: _interval(row["evaluation"].get(f"{name}/greedy_accuracy")) for name in ("test", "dev")}
    models = [
        f"{name} ({'accepted' if model['accepted'] else 'refused'})" for name, model in row["reward_models"].items()
    ]
    shares = [f"{name} {share:.2f}" for name, share in row["advantage_share"].items()]
    return {
        "round": row["round"],
        "policy": row["policy_id"],
        "promoted": row["promoted"],
        **accuracies,
        "reward models": ", ".join(models),
        "advantage share": ", ".join(shares),
        "seconds": round(sum(row["seconds"].values())),
    }


def _interval(value: dict[str, Any] | None) -> str:
    return "" if value is None else f"{value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
