"""``eosfm-edge verify``."""

from __future__ import annotations

import eosfm_edge as ee
from eosfm_edge.api.options import VerifyOptions
from eosfm_edge.cli.options import BundleArgument, Json, Quiet, Verbose
from eosfm_edge.cli.output import console, print_json
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options


@with_options(VerifyOptions)
def verify(
    bundle: BundleArgument,
    options: VerifyOptions,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a bundle's files, and that it computes right here.

    The SHA-256 of each file must be that of the manifest, the manifest must agree with the files,
    and the backend must compute the known answer. Files that the backend does not read may be
    missing. Exits with 1 if a file was altered or a level is off by more than the bundle allows.
    """
    with shown_progress(quiet=quiet, verbose=verbose) as progress:
        result = ee.verify(bundle, options, progress=progress)
    if as_json:
        print_json(result)
        return
    out = console()
    out.print(f"{result.files} files are as they were exported")
    if result.absent:
        count = len(result.absent)
        those = "it" if count == 1 else "them"
        out.print(
            f"{', '.join(result.absent)} {'is' if count == 1 else 'are'} not here, and "
            f"{result.backend} does not need {those}: not checked"
        )
    for level in result.levels:
        out.print(
            f"known answer, {level.level}: {level.relative:.1e} of the largest value "
            f"(limit {result.tolerance:.0e}, {result.backend})"
        )
    for head in result.heads:
        line = f"head {head.head}: {head.relative:.1e} of the largest output"
        if head.changed is not None:
            line += f", {100 * head.changed:.1f} % of the known image's cells in another class"
        out.print(line)
