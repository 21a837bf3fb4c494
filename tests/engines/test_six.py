"""TensorRT-RTX's engines of the six example specialists: every precision and layout, for two SMs.

The radar specialist has no bands in the input and is left out; two of the others run twice.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.scenes import scene_pixels, write_scene

from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.engines.builder import BuildOptions, build_engine
from eosfm_edge.engines.library import load_library
from eosfm_edge.engines.precisions import compare_precisions, parse_listing, require_precisions
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.exporting.deployment import Deployment, deployment
from eosfm_edge.exporting.graphs import write_graphs
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.bundle import Layout
from eosfm_edge.formats.ensemble import INPUT_ADAPTER
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.deployed import TENSORRT, DeployedEncoder
from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble

pytestmark = pytest.mark.engines

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")

SPECIALISTS = Path(__file__).parents[2] / "examples" / "specialists"
TILE = 64
SMS = ("8.6", "8.9")
RUNS = 7
# Of a specialist: a matrix in each of three downsamplings, and in each of twelve blocks a depthwise
# convolution and two matrices.
PRODUCTS = 3 + 12 * 3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return write_scene(path, scene_pixels(13, 4 * TILE, 4 * TILE), S2_L1C)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = SPECIALISTS / "ensemble.safetensors"
    with safe_open(shared, framework="pt") as file:
        bands = INPUT_ADAPTER.validate_json(file.metadata()["input"])
        names = file.metadata()["specialists"].split(",")
    sources = [*(SPECIALISTS / name / "model.safetensors" for name in names), shared]
    folder = tmp_path_factory.mktemp("six") / "six"
    import_ensemble(sources, folder, ImportOptions(input=bands))
    return folder


@pytest.fixture(scope="module")
def half(six: Path, scene: Path) -> Path:
    """Half as many multiply-accumulates, unrepaired: engines do not care, and widths differ."""
    recipe = Recipe(criterion="magnitude", repair_grn=False, repair_fc2=False, tiles=4)
    output = six.with_name("half")
    options = PruneOptions(recipe=recipe, ratio=0.5, tile=TILE)
    prune_ensemble(six, [scene], output, options)
    return output


def deployed(ensemble: Ensemble, precision: Precision) -> Deployment:
    if precision != "int8":
        return deployment(ensemble, "tensorrt-rtx", precision, None)
    stored = torch.from_numpy(scene_pixels(13, TILE, TILE).astype("float32"))[None]
    physical = physical_units(ensemble.spec, stored)
    encoders = {}
    for owner, sets in enumerate(ensemble.sets):
        if sets:
            encoders[owner] = encoder = DeployedEncoder(ensemble.encoders[owner])
            set_scales(encoder, [physical[:, list(bands)] for bands in sets], "minmax", 0)
            for layer in encoder.layers().values():
                layer.precision = "int8"
    return Deployment(Chain(ensemble), encoders, TENSORRT)


@pytest.mark.parametrize("layout", ["whole", "split", "stacked"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("which", ["six", "half"])
@pytest.mark.filterwarnings("ignore::eosfm_edge.ensemble.model.SpecialistSkippedWarning")
def test_every_product_is_in_the_precision_that_was_asked(
    which: str,
    precision: Precision,
    layout: Layout,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    ensemble = load_ensemble(request.getfixturevalue(which))
    chain = deployed(ensemble, precision).traceable(layout)
    image = torch.zeros(1, 13, TILE, TILE)
    graphs = write_graphs(chain, layout, image, tmp_path, dynamic_batch=False, integer_biases=False)
    library = load_library("tensorrt-rtx")
    done: Counter[str] = Counter()
    for graph in graphs:
        options = BuildOptions(precision, 1, 256, SMS)
        built = build_engine(library, tmp_path / graph, options, lambda *what: None)
        assert built.listing is not None
        found = compare_precisions(built.asked, parse_listing(built.listing))
        require_precisions(found)
        assert not found.fallen_back and not found.unseen
        done.update(found.done)
    # A specialist that runs twice does so on a batch, unless it is stacked.
    specialists = len(chain.chain.owners if layout == "stacked" else chain.owners)
    assert specialists == 5
    assert done[precision] == PRODUCTS * (1 if layout == "stacked" else specialists)
