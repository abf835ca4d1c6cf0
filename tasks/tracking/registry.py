"""The registered models of a chain of runs: one for its policies and one for each of its reward models.

Their names are those that people type, `tiny-policy`; where another chain on the server has taken that name, ours ends
in the first digits of the chain's id, `tiny-policy-3fa9c1`. A version is found again by the id of its model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.runs.facts import ModelFact
from tasks.tracking.aliases import MODEL_IDS

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAIN, KEY, ATTEMPT, WORKSPACE = "regroup.chain", "regroup.key", "regroup.attempt", "regroup.workspace"
PAGE = 1000


class Registry:
    """Registers models and sets their aliases."""

    def __init__(self, client: MlflowClient, *, chain_ids: list[str], workspace: str) -> None:
        self._client = client
        self._chain_ids = chain_ids
        """uids of the chain's runs; the first run's is the chain's own"""
        self._workspace = workspace
        self._names: dict[str, str] = {}

    def name(self, wanted: str) -> str:
        """`wanted`, or that with a suffix if another chain has it."""
        if wanted not in self._names:
            taken = self._find(wanted)
            name = wanted if taken is None or self._is_ours(taken) else f"{wanted}-{self._chain_ids[0][:6]}"
            if self._find(name) is None:
                return name
            self._names[wanted] = name
        return self._names[wanted]

    def _find(self, name: str) -> Any:
        return next(iter(self._client.search_registered_models(f"name = '{name}'")), None)

    def _is_ours(self, model: Any) -> bool:
        """Whether the chain made that registered model; one without a mark was made by an earlier version."""
        if (chain := model.tags.get(CHAIN)) is not None:
            return chain in self._chain_ids
        return any(version.tags.get(KEY, "").partition("/")[0] in self._chain_ids for version in self._all(model.name))

    def register(self, model: ModelFact, run_id: str, tags: dict[str, str]) -> None:
        """Register the model that the run `run_id` has; versions of other attempts at its stage are deleted.

        `tags` hold the stage's KEY and ATTEMPT.
        """
        name, is_there = self.name(model.name), False
        if self._find(name) is None:
            marks = {CHAIN: self._chain_ids[0], WORKSPACE: self._workspace}
            self._client.create_registered_model(name, tags=marks)
        for version in self._all(name):
            if version.tags.get(KEY) != tags[KEY]:
                continue
            if version.tags.get(ATTEMPT) == tags[ATTEMPT] and version.run_id == run_id:
                is_there = True
            else:
                self._client.delete_model_version(name, version.version)
        if not is_there:
            source = f"runs:/{run_id}/{model.folder}"
            self._client.create_model_version(name, source, run_id, tags=model.tags | tags, await_creation_for=0)

    def has(self, wanted: str, model_id: str, *, but_not: dict[str, str] | None = None) -> bool:
        """Whether a version of the registered model is that very model.

        `but_not` has a stage's KEY and ATTEMPT: versions of its other attempts do not count, for they are deleted.
        """
        attempt = but_not or {}
        return any(
            model_id in self._ids(version.tags)
            and (version.tags.get(KEY) != attempt.get(KEY) or version.tags.get(ATTEMPT) == attempt.get(ATTEMPT))
            for version in self._all(self.name(wanted))
        )

    def point(self, wanted: str, aliases: dict[str, str | None]) -> bool:
        """Let each alias serve the model with that id, or none; one whose model has no version yet stays as it is.

        Returns whether all have one.
        """
        name = self.name(wanted)
        if (registered := self._find(name)) is None:
            return False
        all_are_set = True
        current = {alias: str(version) for alias, version in registered.aliases.items()}
        for alias, model_id in aliases.items():
            version = None if model_id is None else self._version_of(name, model_id)
            if model_id is None and alias in current:
                self._client.delete_registered_model_alias(name, alias)
            elif version is not None and current.get(alias) != version:
                self._client.set_registered_model_alias(name, alias, version)
            all_are_set &= model_id is None or version is not None
        return all_are_set

    def _version_of(self, name: str, model_id: str) -> str | None:
        newest_first = sorted(self._all(name), key=lambda version: -int(version.version))
        return next((str(version.version) for version in newest_first if model_id in self._ids(version.tags)), None)

    @staticmethod
    def _ids(tags: dict[str, str]) -> list[str]:
        return [tags[name] for name in MODEL_IDS if name in tags] + [tags.get(KEY, "").partition("/")[2]]

    def _all(self, name: str) -> list[Any]:
        return pages(lambda token: self._client.search_model_versions(f"name = '{name}'", PAGE, page_token=token))


def pages(page: Callable[[str | None], Any]) -> list[Any]:
    """All items of a search that MLflow answers page by page."""
    items, token = [], None
    while True:
        found = page(token)
        items += found
        token = found.token or None
        if token is None:
            return items
