"""Random heads for bundles that tests write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eosfm_edge.bundle.heads import HeadFile, write_head
from eosfm_edge.bundle.known_answer import IMAGE_TENSOR, KnownAnswer, level_tensor
from eosfm_edge.formats.bundle import CHAIN_NAME
from eosfm_edge.formats.heads import HeadClass, HeadSpec, head_file
from eosfm_edge.native.gguf import read_gguf


def known_answer_of(bundle: Path) -> KnownAnswer:
    """Return the known answer of a bundle that may have no manifest."""
    tensors = read_gguf(bundle / CHAIN_NAME).tensors
    levels = tuple(np.array(tensors[level_tensor(index)])[None] for index in range(4))
    return KnownAnswer(np.array(tensors[IMAGE_TENSOR])[None], levels)


def random_head(
    channels: Sequence[int],
    name: str = "landuse",
    levels: Sequence[int] = (1, 2, 3, 4),
    outputs: int = 3,
    seed: int = 0,
    task: str = "classes",
) -> HeadFile:
    """Return a head of the class codes 10, 20 ... for levels of so many channels."""
    rng = np.random.default_rng(seed)
    classes = tuple(
        HeadClass(name=f"class {i}", code=10 * (i + 1), colour=(i, 255 - i, 100))
        for i in range(outputs if task == "classes" else 0)
    )
    return HeadFile(
        HeadSpec(name=name, task=task, levels=tuple(levels), classes=classes, score=0.5, cells=7),
        {
            n: rng.normal(0, 1 / channels[n - 1] ** 0.5, (channels[n - 1], outputs)).astype("f4")
            for n in levels
        },
        rng.normal(size=outputs).astype("f4"),
    )


def add_random_head(bundle: Path, name: str = "landuse", **how: object) -> HeadFile:
    """Write a random head into a bundle without a manifest."""
    answer = known_answer_of(bundle)
    head = random_head([level.shape[1] for level in answer.levels], name, **how)  # type: ignore[arg-type]
    path = bundle / head_file(name)
    path.parent.mkdir(exist_ok=True)
    write_head(path, head, answer)
    return head
