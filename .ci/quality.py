"""Quality on real clips: runs `stmemory evaluate` and compares the mean J&F (percent) with a floor. Sets no floor
itself.

python .ci/quality.py ROOT floor.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

root, floor = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "out"
    command = [sys.executable, "-m", "stmemory", "evaluate", str(root), *floor["clips"], "-o", str(out)]
    code = subprocess.run(command).returncode
    if code:
        raise SystemExit(f"stmemory evaluate ended with exit code {code}")
    summary = json.loads((out / "report.json").read_text())["summary"]
measured = 100 * (summary["mean"] or 0.0)
print(f"J&F {measured:.1f} over {summary['clips']} clips, floor {floor['j_and_f']:.1f}")
if summary["clips"] != len(floor["clips"]) or measured < floor["j_and_f"]:
    raise SystemExit("quality is below the floor in .ci/floor.json")
