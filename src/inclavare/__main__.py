"""`rune` on any Python: `python3 -IS .../inclavare/__main__.py`. The launcher comes here for RUNE_PYTHON=1."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from inclavare.cli.rune import main

main()
