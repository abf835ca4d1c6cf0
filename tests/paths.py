"""Where the project lies."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
TINY = ROOT / "configs" / "tiny.yaml"
