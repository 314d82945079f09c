"""pytest: tools/ is importable by bare name, as it is for the scripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
