from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reader import load_config
from configs.schema.config import Config
from tests.paths import TINY

Configure = Callable[..., Config]


@pytest.fixture
def configure(workspace: Path) -> Configure:
    """tiny.yaml with some blocks replaced; keys of inner mappings are merged."""

    def configured(**blocks: Any) -> Config:
        data = yaml.safe_load(TINY.read_text())
        for name, value in blocks.items():
            data[name] = data.get(name, {}) | value if isinstance(value, dict) else value
        path = workspace / "config.yaml"
        path.write_text(yaml.safe_dump(data))
        return load_config(path)

    return configured
