"""What a repository is deployed by: a guide, a front with TLS and a token, Compose, Kubernetes, a client's image.

The files are package data, so that an installed wheel has them.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

FILES = ("README.md", "Caddyfile", "compose.yaml", "kubernetes.yaml", "Dockerfile")
"""Names of the files; no digest of a repository covers them."""


def write_deployment(folder: Path) -> None:
    """Write the files into a repository's folder, beside its models; files of these names are replaced.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deployment(Path(folder))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['Caddyfile', 'Dockerfile', 'README.md', 'compose.yaml', 'kubernetes.yaml']
    """
    held = resources.files("causcell.serve") / "deploy"
    for name in FILES:
        (folder / name).write_bytes((held / name).read_bytes())
