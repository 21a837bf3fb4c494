"""``eosfm-edge verify``."""

from __future__ import annotations

from pathlib import Path

import click

from eosfm_edge.cli.options import PATH, console
from eosfm_edge.formats.backends import BACKENDS


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--backend", type=click.Choice(BACKENDS), default=BACKENDS[0], show_default=True)
def verify(bundle: Path, backend: str) -> None:
    """Check a BUNDLE's files, and that it computes right here.

    Files are compared by their SHA-256 with the manifest, that with what the files say, and what is
    computed with the known answer. What the backend does not read may be missing. Exits with 1 if a
    file was altered or a level is off by more than the bundle allows.
    """
    from eosfm_edge.runtime.verify import verify_bundle

    result = verify_bundle(bundle, backend)
    out = console()
    out.print(f"{result.files} files are as they were exported")
    for name in result.absent:
        out.print(f"{name} is not here, and {result.backend} does not need it")
    for level in result.levels:
        out.print(
            f"known answer, {level.level}: {level.relative:.1e} of the largest value "
            f"(limit {result.tolerance:.0e}, {result.backend})"
        )
