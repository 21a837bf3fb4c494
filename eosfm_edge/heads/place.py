"""A bundle's heads, put in and taken out: it is the old one or the new one at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eosfm_edge.bundle.digests import file_entry
from eosfm_edge.bundle.heads import HeadFile, head_names, write_head
from eosfm_edge.bundle.intact import require_intact
from eosfm_edge.bundle.known_answer import read_known_answer
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_directory
from eosfm_edge.formats.bundle import CONTENTS, MANIFEST_NAME, read_manifest
from eosfm_edge.formats.heads import HEADS_FOLDER, head_file


@contextmanager
def changed_bundle(bundle: Path, *, without: str | None = None) -> Iterator[Path]:
    """Give a copy of a bundle, which takes its place when the block succeeds.

    Its files are hard links where the file system has them: whoever changes one writes a new file.
    Its heads may be changed, and its manifest then lists them.

    Args:
        bundle: the bundle's directory.
        without: the file of a head that the manifest lists no more.

    Raises:
        UserError: it cannot be written, or somebody else has changed the bundle meanwhile.
    """
    with atomic_directory(bundle, contents=CONTENTS, overwrite=True) as folder:
        before = (bundle / MANIFEST_NAME).read_bytes()
        for path in sorted(bundle.rglob("*")):
            place = folder / path.relative_to(bundle)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            else:
                _link_or_copy(path, place)
        yield folder
        if (bundle / MANIFEST_NAME).read_bytes() != before:
            raise UserError(f"{bundle} was changed by someone else meanwhile", remedy="do it again")
        heads = folder / HEADS_FOLDER
        if heads.is_dir() and not any(heads.iterdir()):
            heads.rmdir()
        manifest = read_manifest(folder)
        # Heads that were not sent here stay listed.
        files = {name: entry for name, entry in manifest.files.items() if name != without}
        for path in sorted(heads.glob("*")):
            name = path.relative_to(folder).as_posix()
            files[name] = file_entry(folder, name)
        (folder / MANIFEST_NAME).unlink()
        changed = manifest.model_copy(update={"files": files})
        (folder / MANIFEST_NAME).write_text(changed.model_dump_json(indent=1) + "\n")


def _link_or_copy(path: Path, place: Path) -> None:
    # The permissions of the new bundle's files are set, which only their owner may do.
    if path.stat().st_uid == os.geteuid():
        try:
            os.link(path, place)
            return
        except OSError:  # the file system has no hard links
            pass
    shutil.copy2(path, place)


def place_head(bundle: Path, head: HeadFile, *, overwrite: bool = False) -> None:
    """Put a head into a bundle, whose levels must have the channels that it reads.

    Raises:
        CheckFailedError: a file of the bundle is missing, altered or surplus.
        UserError: the head does not fit, or the bundle has one of its name.
    """
    manifest = read_manifest(bundle)
    _require_intact(bundle)
    if head.spec.name in head_names(bundle, manifest) and not overwrite:
        raise UserError(f"{bundle} has a head {head.spec.name}", remedy="add --overwrite")
    for number, weight in head.weights.items():
        level = manifest.levels[number - 1]
        if len(weight) != level.channels:
            raise UserError(
                f"the head {head.spec.name} reads {len(weight)} channels of {level.name}",
                expected=f"the {level.channels} that {bundle} has",
                remedy="fit it to this bundle: eosfm-edge head fit",
            )
    answer = read_known_answer(bundle, manifest)
    with changed_bundle(bundle) as folder:
        path = folder / head_file(head.spec.name)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        write_head(path, head, answer)


def remove_head(bundle: Path, name: str) -> None:
    """Take a head out of a bundle.

    Raises:
        CheckFailedError: a file of the bundle is missing, altered or surplus.
        UserError: there is none of the name.
    """
    names = [Path(file).stem for file in read_manifest(bundle).of_role("head")]
    if name not in names:
        raise UserError(
            f"{bundle} has no head {name}", expected=f"one of {', '.join(names)}" if names else None
        )
    _require_intact(bundle)
    with changed_bundle(bundle, without=head_file(name)) as folder:
        (folder / head_file(name)).unlink(missing_ok=True)


def _require_intact(bundle: Path) -> None:
    """Check a bundle's files; whichever it can be computed from are enough."""
    manifest = read_manifest(bundle)
    require_intact(bundle, manifest, "native" if manifest.of_role("native") else "onnxruntime")
