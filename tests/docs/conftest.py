"""Helpers of the command line's tests serve here too."""

from __future__ import annotations

import sys
from pathlib import Path

HELPERS = str(Path(__file__).resolve().parent.parent / "cli")
if HELPERS not in sys.path:
    sys.path.append(HELPERS)
