"""One graph, a graph for each specialist, one of stacks: the same levels from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.graphs import open_graphs
from support.precise import exported
from support.specimens import ensemble_of, write_ensemble
from support.tiers import thorough

from eosfm_edge.bundle.known_answer import read_known_answer, sqnr_db
from eosfm_edge.engines.build import parse_graphs
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bundle import Layout, Manifest, read_manifest
from eosfm_edge.formats.engines import read_index
from eosfm_edge.formats.precision import Precision
from eosfm_edge.runtime.verify import verify_bundle
from eosfm_edge.targets.registry import find_target

LAYOUTS: tuple[Layout, ...] = ("whole", "split", "stacked")
# Decibels between layouts. Where values are rounded, some fall to the other side of an edge, and
# what is behind carries that on: in int8 it is about the noise that rounding makes anyway.
LEAST = {"fp32": 100, "fp16": 40, "int8": 24}


def levels(bundle: Path) -> list[Any]:
    return open_graphs(bundle)(read_known_answer(bundle, read_manifest(bundle)).image)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three specialists, of which two can be stacked."""
    folder = tmp_path_factory.mktemp("ensembles") / "three"
    return write_ensemble(folder, ensemble_of((3, 3, 3), backbone="mote"))


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["fp16", *thorough("fp32", "int8")])
def test_layouts_give_the_same(
    tmp_path: Path, three: Path, imagery: Path, precision: Precision
) -> None:
    found = {}
    for layout in LAYOUTS:
        folder = tmp_path / layout
        folder.mkdir()
        bundle = exported(folder, three, imagery, "desktop-tensorrt", precision, layout)
        assert read_manifest(bundle).layout == layout
        verify_bundle(bundle, "onnxruntime")
        verify_bundle(bundle, "native")
        found[layout] = levels(bundle)
    for layout in ("split", "stacked"):
        for mine, whole in zip(found[layout], found["whole"], strict=True):
            assert sqnr_db(mine, whole) > LEAST[precision]


def test_a_split_bundle_has_a_graph_for_each_specialist(
    tmp_path: Path, three: Path, imagery: Path
) -> None:
    bundle = exported(tmp_path, three, imagery, "desktop-tensorrt", "fp32", "split")
    manifest = read_manifest(bundle)
    names = [specialist.name for specialist in manifest.specialists]
    assert manifest.graphs == (*(f"specialists/{name}.onnx" for name in names), "fusion.onnx")
    assert not (bundle / "model.onnx").exists()
    given: set[str] = {"image"}
    for graph in manifest.graphs:
        found = onnx.load(bundle / graph).graph
        assert {value.name for value in found.input} <= given
        given |= {value.name for value in found.output}
    assert {level.name for level in manifest.levels} <= given


def test_a_stack_is_computed_once(tmp_path: Path, three: Path, imagery: Path) -> None:
    """As many matrix products as one specialist has, and as many depthwise convolutions."""
    counts = {}
    for layout in ("whole", "stacked"):
        folder = tmp_path / layout
        folder.mkdir()
        bundle = exported(folder, three, imagery, "desktop-tensorrt", "fp16", layout)  # type: ignore[arg-type]
        operators = [node.op_type for node in onnx.load(bundle / "model.onnx").graph.node]
        counts[layout] = operators.count("MatMul"), operators.count("LayerNormalization")
    assert counts["whole"][0] == 3 * counts["stacked"][0]
    # Stems are on their own.
    assert counts["whole"][1] - 3 == 3 * (counts["stacked"][1] - 3)


@pytest.mark.thorough
def test_a_batch_goes_through_every_layout(tmp_path: Path, three: Path, imagery: Path) -> None:
    for layout in LAYOUTS:
        bundle = tmp_path / f"{layout}.eosfm"
        options = ExportOptions(
            target=find_target("desktop-tensorrt"), tile=64, batch=3, layout=layout
        )
        manifest: Manifest = export_bundle(three, imagery, bundle, options)
        assert manifest.tile.batch == 3
        image = read_known_answer(bundle, manifest).image
        run = open_graphs(bundle)
        together = run(np.concatenate([image, image + 1, image]))
        for mine, alone in zip(together, run(image), strict=True):
            assert sqnr_db(mine[2:], alone) > 100 and sqnr_db(mine[1:2], alone) < 100


@pytest.mark.engines
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds_every_layout_when_it_is_exported(
    tmp_path: Path, three: Path, imagery: Path, precision: Precision, layout: Layout
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    bundle = exported(tmp_path, three, imagery, "desktop-rtx", precision, layout, ("8.6", "8.9"))
    manifest = read_manifest(bundle)
    engines = read_index(bundle).engines
    assert [engine.graph for engine in engines] == list(manifest.graphs)
    for engine in engines:
        assert engine.key.compute_capabilities == ("8.6", "8.9")
        assert engine.key.graph_sha256 == manifest.files[engine.graph].sha256
    assert sum(engine.products.get(precision, 0) for engine in engines) > 0
    parsed = parse_graphs(bundle, manifest)
    asked = [products.get(precision, 0) for products in parsed.products.values()]
    assert [engine.products.get(precision, 0) for engine in engines] == asked
    verify_bundle(bundle, "native")
