"""``eosfm-edge doctor``."""

from __future__ import annotations

from collections.abc import Sequence

import eosfm_edge as ee
from eosfm_edge.cli.options import Json
from eosfm_edge.cli.output import console, facts, megabytes, print_json
from eosfm_edge.runtime.doctor import Diagnosis, Part


def doctor(as_json: Json = False) -> None:
    """Show what this machine has, and what can be done with it.

    A backend is usable if its libraries and its device are here. That it computes right is proven
    by the known answer of a bundle: eosfm-edge verify BUNDLE --backend NAME.
    """
    found = ee.doctor()
    if as_json:
        print_json(found)
        return
    out = console()
    rows = facts()
    for name, value in _machine(found):
        rows.add_row(name, value)
    out.print(rows)
    for title, parts in (("backend", found.backends), ("work", found.verbs)):
        out.print()
        _print_parts(title, parts)


def _machine(found: Diagnosis) -> list[tuple[str, str]]:
    rows = [
        ("eosfm-edge", f"{found.version}, Python {found.python}"),
        ("processor", f"{found.architecture}, {found.processors} to use, glibc {found.glibc}"),
        ("memory", megabytes(found.memory)),
    ]
    if found.board:
        rows.append(("board", found.board))
    if found.l4t:
        rows.append(("Jetson Linux", found.l4t))
    gpu = found.gpu
    if gpu:
        capability = f"SM {gpu.compute_capability}, {megabytes(gpu.memory)}, CUDA {gpu.cuda}"
        rows.append(("GPU", f"{gpu.name}, {capability}"))
    else:
        rows.append(("GPU", f"none: {found.no_gpu}"))
    rows.append(("TensorRT", ", ".join(found.tensorrt) or "none"))
    rows.append(("target", f"{found.target}: {found.why}"))
    return rows


def _print_parts(title: str, parts: Sequence[Part]) -> None:
    out = console()
    width = max(len(part.name) for part in parts)
    out.print(f"{title:{width}}  usable")
    for part in parts:
        out.print(f"{part.name:{width}}  {'yes' if part.usable else 'no ':6}  {part.found}")
        if part.remedy:
            out.print(f"{'':{width}}          fix: {part.remedy}")
