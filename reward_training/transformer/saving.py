"""Tries, before a model is trained, whether it can be saved afterwards."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError
from reward_training.transformer.quiet import quiet_transformers

GB = 1e9


def try_saving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write all but the weights of the model to `folder` and remove it again; check that the disk has room for them.

    A folder that was not there is not there afterwards.

    Raises:
        ConfigError: the folder cannot be written, the disk is too full, or transformers refuses to save the model.
    """
    is_new = not folder.exists()
    try:
        _try(model, tokenizer, folder)
    finally:
        if is_new and folder.is_dir():
            folder.rmdir()


def _try(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".trial.", dir=folder) as trial, quiet_transformers():
            model.save_pretrained(trial, state_dict={})
            tokenizer.save_pretrained(trial)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error}); free space on its disk, mend its permissions, or work in another folder"
        ) from error
    # transformers refuses settings by ValueError, values that JSON cannot hold by TypeError, and quantised weights by NotImplementedError
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            f"{type(model).__name__} could be trained but not saved: {error}; mend the files beside its weights"
        ) from error
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"the trained model takes {needed / GB:.2f} GB and {folder} has {free / GB:.2f} GB left; free space, or work in a "
            "folder on another disk"
        )
