"""What the built package contains: the sdist every file of the source but those of CI, the wheel the library alone.

python .ci/package.py SOURCE DIST
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

source, dist = Path(sys.argv[1]), Path(sys.argv[2])
(sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
left_out = {".ci", ".github", "dist"}
files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
files = {name for name in files if name.partition("/")[0] not in left_out}
with tarfile.open(sdist) as archive:
    packed = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
with zipfile.ZipFile(wheel) as archive:
    installed = {name for name in archive.namelist() if ".dist-info/" not in name}

problems = [f"sdist: {name} is missing" for name in sorted(files - packed)]
problems += [f"sdist: {name} should not be there" for name in sorted(packed - files - {"PKG-INFO"})]
library = {name for name in files if name.startswith("stmemory/")}
problems += [f"wheel: {name} is missing" for name in sorted(library - installed)]
problems += [f"wheel: {name} should not be there" for name in sorted(installed - library)]
print(f"{sdist.name}: {len(packed)} files; {wheel.name}: {len(installed)} files of the library")
if problems:
    raise SystemExit("\n".join(problems))
