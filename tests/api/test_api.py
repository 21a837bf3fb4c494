"""``import eosfm_edge``: light, complete, and as safe as the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.specimens import ensemble_of, write_ensemble
from support.weights import S2_INPUT, encoder_state

import eosfm_edge as ee
from eosfm_edge.formats.bands import S2_L1C

VERBS = (
    "import_ensemble",
    "prune",
    "calibrate",
    "export",
    "deploy",
    "build",
    "verify",
    "run",
    "bench",
)


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules); import eosfm_edge; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new & {'torch', 'numpy', 'pydantic', 'rasterio', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_options_and_views_need_no_torch() -> None:
    program = (
        "import sys; import eosfm_edge as ee; ee.PruneOptions(ratio=0.5); ee.open; ee.prune; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_every_public_name_is_there() -> None:
    assert all(getattr(ee, name) is not None for name in ee.__all__)
    assert set(dir(ee)) == set(ee.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prunes'"):
        _ = ee.prunes


def test_a_stage_of_a_verbs_name_does_not_hide_the_verb() -> None:
    import eosfm_edge.exporting.exporter  # noqa: F401

    assert all(callable(getattr(ee, verb)) for verb in VERBS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ee.PruneOptions(ratio=1), "ratio is 1\n  expected: less than 1"),
        (lambda: ee.PruneOptions(rato=0.5), "expected: one of bands, scale"),
        (lambda: ee.PruneOptions(tile=100), "expected: a multiple of 32"),
        (lambda: ee.PruneOptions(data=[3]), "must be a path"),
        (lambda: ee.ImportOptions(bands="B99,,"), "B99"),
        (lambda: ee.RunOptions(scale=float("nan")), "scale"),
        (lambda: ee.ImportOptions(specialist_bands="B04"), "NAME=BANDS"),
    ],
)
def test_wrong_options_are_user_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ee.UserError, match=message):
        make()


@pytest.mark.parametrize(
    "scale", [1e-4, {"B04": 1e-4, "B03": 1e-4}, [1e-4, 1e-4], "0.0001", ("B04=1e-4", "B03=1e-4")]
)
def test_values_of_bands_can_be_given_in_every_way(scale: object, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(encoder_state(2), tmp_path / "one.safetensors")
    chosen = ee.ImportOptions(
        bands="B04,B03", scale=scale, specialist_bands={"one": "B04,B03"}, norm="none"
    )
    imported = ee.import_ensemble(str(tmp_path / "one.safetensors"), tmp_path / "out", chosen)
    assert [band.scale for band in imported.spec.input] == [1e-4, 1e-4]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_import_refuses_to_replace_its_own_input(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "six", ensemble_of())
    before = files(tmp_path)
    sources = sorted((tmp_path / "six" / "specialists").iterdir())
    with pytest.raises(ee.UserError, match="is in the output"):
        ee.import_ensemble(sources[:1], tmp_path / "six", overwrite=True)
    assert files(tmp_path) == before


def test_prune_refuses_to_replace_any_of_its_inputs(specks: Path, tmp_path: Path) -> None:
    shutil.copytree(specks, tmp_path / "six")
    inside = tmp_path / "six" / "given"
    inside.write_text("")
    before = files(tmp_path)
    for options in (
        ee.PruneOptions(ratio=0.5),
        ee.PruneOptions(plan=inside),
        ee.PruneOptions(ratio=0.5, data=inside),
        ee.PruneOptions(ratio=0.5, save_plan=inside),
        ee.PruneOptions(specialists=1, rank_by="probe", labels=inside),
        ee.PruneOptions(budget="1ms", measured=inside),
        ee.PruneOptions(ratio=0.5, recipe=str(tmp_path / "six" / "recipe.yaml")),
    ):
        source = tmp_path / "six" if options.ratio and not options.data else specks
        with pytest.raises(ee.UserError, match="is in the output"):
            ee.prune(source, tmp_path / "six", options, overwrite=True)
    assert files(tmp_path) == before


def test_other_verbs_refuse_to_replace_their_inputs(
    specks: Path, bundle: Path, scene: Path, tmp_path: Path
) -> None:
    shutil.copytree(specks, tmp_path / "six")
    shutil.copytree(bundle, tmp_path / "six.eosfm")
    shutil.copy(scene, tmp_path / "six" / "scene.tif")
    before = files(tmp_path)
    for call in (
        lambda: ee.calibrate(tmp_path / "six", tmp_path / "six", overwrite=True),
        lambda: ee.calibrate(
            specks,
            tmp_path / "six",
            ee.CalibrateOptions(data=tmp_path / "six" / "scene.tif"),
            overwrite=True,
        ),
        lambda: ee.export(
            specks,
            tmp_path / "six",
            ee.ExportOptions(data=tmp_path / "six" / "scene.tif"),
            overwrite=True,
        ),
        lambda: ee.export(
            tmp_path / "six", tmp_path / "six", ee.ExportOptions(data=scene), overwrite=True
        ),
        lambda: ee.run(tmp_path / "six.eosfm", scene, tmp_path / "six.eosfm", overwrite=True),
        lambda: ee.run(bundle, tmp_path / "six" / "scene.tif", tmp_path / "six", overwrite=True),
    ):
        with pytest.raises(ee.UserError, match="is in the output"):
            call()
    assert files(tmp_path) == before


def test_wishes_that_contradict_each_other_are_refused(specks: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    for options, message in (
        (ee.PruneOptions(plan=plan, scope="width"), "edit it there"),
        (ee.PruneOptions(specialists="K"), "'useful'"),
        (ee.PruneOptions(specialists=1, rank_by="probe"), "both, or none"),
        (ee.PruneOptions(ratio=0.5, rank_by="probe", labels=plan), "--specialists K"),
    ):
        with pytest.raises(ee.UserError, match=message):
            ee.prune(specks, tmp_path / "out", options)
    with pytest.raises(ee.UserError, match="nothing to write"):
        ee.prune(specks, None)
    with pytest.raises(ee.UserError, match="both split and stack"):
        ee.export(specks, tmp_path / "a.eosfm", ee.ExportOptions(data=plan, split=True, stack=True))
    with pytest.raises(ee.UserError, match="--data SCENE"):
        ee.export(specks, tmp_path / "a.eosfm")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:encoder_3 is skipped")
@pytest.mark.filterwarnings("ignore::eosfm_edge.network.cells.FewTilesWarning")
def test_the_road_ends_with_features_of_an_array(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    report = ee.prune(
        str(motes),
        tmp_path / "half",
        ee.PruneOptions(ratio=0.3, data=str(imagery), tile=64, tiles=48, bands="B04,B03,B02"),
        progress=lambda what, done, total: told.append(what),
    )
    assert report.after is not None and report.before is not None
    assert report.after.macs < report.before.macs
    assert told
    manifest = ee.export(
        tmp_path / "half",
        tmp_path / "half.eosfm",
        ee.ExportOptions(data=imagery, tile=64, bands="B04,B03,B02"),
    )
    assert ee.verify(tmp_path / "half.eosfm").files == len(manifest.files)
    assert ee.bench(tmp_path / "half.eosfm", ee.BenchOptions(rounds=2)).timings[0].name == "native"


def test_s2_input_is_what_import_makes_of_a_preset() -> None:
    from eosfm_edge.api.inputs import input_bands

    found = input_bands(ee.ImportOptions(bands="S2L1C", scale=1e-4))
    assert found is not None
    assert [band.name for band in found] == [band.name for band in S2_INPUT] == list(S2_L1C)
    assert np.allclose([band.scale for band in found], 1e-4)
