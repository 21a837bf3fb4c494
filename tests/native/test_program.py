"""The C program `eosfm`: it verifies, runs and times as eosfm-edge does."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.c_program import (
    COAST,
    COAST_BANDS,
    Pixels,
    eosfm,
    npy_levels,
    write_envi,
)
from support.programs import ROOT
from support.scenes import scene_pixels, write_scene

from eosfm_edge.bundle.sizes import bundle_sizes
from eosfm_edge.formats.bench import read_bench_report
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.stream import Stream, StreamBand
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.runtime.verify import verify_bundle

BANDS = len(COAST_BANDS)
DTYPES = ("u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", ">i4", "<f4", ">f4", "<f8", ">f8")
INTERLEAVES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
ENVI_TYPES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13}


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with Model(COAST) as model:
        context = model.context(threads=1)
    with context:
        yield context


def streamed(context: Context, pixels: Pixels, overlap: int = -1) -> list[Pixels]:
    """Return the levels that the library gives for the pixels as they are stored."""
    height, width = pixels.shape[1:]
    levels = [
        np.full((shape[0], -(-height // (4 << i)), -(-width // (4 << i))), -9, np.float32)
        for i, shape in enumerate(context.shapes)
    ]
    bands = [StreamBand(pixels.dtype)] * len(pixels)
    stream, done = Stream(context, width, bands, overlap=overlap), [0] * len(pixels)

    def feed() -> bool:
        for band, rows in enumerate(pixels):
            done[band] += stream.push_rows(band, rows[done[band] :][:32])
        return min(done) < height

    for patch in stream.patches(feed):
        for level, part in zip(levels, patch.levels, strict=True):
            assert part is not None
            rows, columns = part.valid.shape
            level[:, part.row :, part.column :][:, :rows, :columns] = part.features
    stream.close()
    return levels


def envi_header(dtype: str, interleave: str, shape: Sequence[int], **more: object) -> str:
    kind = np.dtype(dtype)
    lines = {
        "samples": shape[2], "lines": shape[1], "bands": shape[0], "header offset": 0,
        "data type": ENVI_TYPES[kind.str[1:]], "interleave": interleave,
        "byte order": int(kind.byteorder == ">"),
    } | more  # fmt: skip
    return "ENVI\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


# Verify and bench


def test_verify_gives_the_differences_of_eosfm_edge(program: Path) -> None:
    code, out, err = eosfm(program, "verify", COAST)
    here = verify_bundle(COAST, "native")
    assert (code, err) == (0, "")
    for line, level in zip(out.splitlines(), here.levels, strict=False):
        assert line == (
            f"known answer, {level.level}: {level.relative:.1e} of the largest value "
            f"(limit {here.tolerance:.0e}, native)"
        )
    assert out.splitlines()[4:] == [
        "not checked: SHA-256 of the files, and manifest.json; eosfm-edge verify does"
    ]
    code, out, err = eosfm(program, "verify", COAST, "--json")
    found = json.loads(out)
    assert code == 0 and found["backend"] == "native" and "SHA-256" in found["not_checked"]
    for level, theirs in zip(found["levels"], here.levels, strict=True):
        assert level["level"] == theirs.level and level["tolerance"] == pytest.approx(
            here.tolerance
        )
        assert level["relative"] == pytest.approx(theirs.relative, rel=1e-8)


def test_bench_writes_what_prune_measured_reads(program: Path, tmp_path: Path) -> None:
    code, out, _ = eosfm(program, "bench", COAST, "--rounds", 3, "--threads", 1, "--json")
    assert code == 0
    (tmp_path / "board.json").write_text(out)
    report = read_bench_report(tmp_path / "board.json")
    assert report.macs == read_manifest(COAST).macs and report.threads == 1
    (timing,) = report.timings
    assert timing.name == "native" and len(timing.round_ms) == 3 and timing.memory_mb > 1
    assert report.machine.cores == len(os.sched_getaffinity(0)) and report.machine.python is None


def test_bench_says_the_memory_of_the_requirements(program: Path) -> None:
    code, out, err = eosfm(program, "bench", COAST, "--rounds", 2, "--threads", 2)
    assert (code, err) == (0, "")
    with Model(COAST) as model:
        needs = model.requirements(threads=2)
    weights, context = needs.weights_bytes / 1e6, needs.context_bytes / 1e6
    assert f"{context:.1f} MB for the context and {weights:.1f} MB for the weights" in out
    low, high = map(float, re.findall(r"tile +[\d.]+ ms \(([\d.]+) to ([\d.]+)\)", out)[0])
    assert 0 < low <= high
    assert "2 specialists in 3 runs, a tile of 128 x 128 pixels" in out


def test_version_names_the_engines_that_are_here(program: Path) -> None:
    code, out, _ = eosfm(program, "--version")
    assert code == 0 and re.search(r"^  native +\w+", out, re.MULTILINE)
    assert re.search(r"^  cuda +\w+", out, re.MULTILINE)


# Run


@pytest.mark.parametrize("interleave", INTERLEAVES)
@pytest.mark.parametrize("nodata", [None, 1234.0])
def test_run_writes_what_eosfm_edge_writes(
    program: Path, tmp_path: Path, interleave: str, nodata: float | None
) -> None:
    pixels = scene_pixels(BANDS, 200, 301)
    pixels[:, 40:110, 100:220] = 0 if nodata is None else 1234
    pixels[COAST_BANDS.index("B10"), 120:] = 0  # a measurement, as the bundle says
    scene = write_envi(tmp_path / "scene.img", pixels, interleave, nodata=nodata)
    code, out, err = eosfm(program, "run", COAST, scene, "-o", tmp_path / "c")
    assert (code, err) == (0, "")
    report = run_scene(COAST, scene, tmp_path / "python")
    assert f"{report.tiles}, of which {report.skipped_tiles} without data" in out
    for level in read_manifest(COAST).levels:
        with (
            rasterio.open(tmp_path / "c" / f"{level.name}.img") as mine,
            rasterio.open(tmp_path / "python" / f"{level.name}.tif") as theirs,
        ):
            np.testing.assert_array_equal(mine.read(), theirs.read())
            assert (mine.transform, mine.shape) == (theirs.transform, theirs.shape)
            assert mine.crs == theirs.crs and np.isnan(mine.nodata)
            assert np.isnan(mine.read(1)).any()
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".hdr"] * 4 + [".img"] * 4


def test_run_reads_scales_and_offsets_of_the_file(program: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(BANDS, 130, 140).astype(np.int16)
    pixels[:, 40:90, 30:] = 0  # with another scale than the bundle's, its nodata value is data
    scene = write_envi(tmp_path / "scene.img", pixels)
    with (tmp_path / "scene.hdr").open("a") as header:
        header.write(f"data gain values = {{{', '.join(['2e-4'] * BANDS)}}}\n")
        header.write(f"data offset values = {{{', '.join(['0.02'] * BANDS)}}}\n")
    with rasterio.open(scene) as dataset:
        assert dataset.scales[0] == 2e-4 and dataset.offsets[0] == 0.02, "as GDAL reads it"
    assert eosfm(program, "run", COAST, scene, "-o", tmp_path / "c")[0] == 0
    run_scene(COAST, scene, tmp_path / "python")
    for number in range(1, 5):
        with (
            rasterio.open(tmp_path / "c" / f"level{number}.img") as mine,
            rasterio.open(tmp_path / "python" / f"level{number}.tif") as theirs,
        ):
            np.testing.assert_array_equal(mine.read(), theirs.read())


def test_run_takes_bands_by_their_names(program: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(BANDS + 1, 128, 128)
    names = [*reversed(COAST_BANDS), "SCL"]
    shuffled = np.concatenate([pixels[:BANDS][::-1], pixels[BANDS:]])
    for interleave in INTERLEAVES:
        scene = write_envi(tmp_path / f"{interleave}.img", shuffled, interleave, names)
        assert eosfm(program, "run", COAST, scene, "-o", tmp_path / interleave)[0] == 0
    np.save(tmp_path / "plain.npy", pixels[:BANDS])
    code, *_ = eosfm(program, "run", COAST, tmp_path / "plain.npy", "-o", tmp_path / "plain")
    assert code == 0
    expected = npy_levels(tmp_path / "plain")
    for interleave in INTERLEAVES:
        for name, level in expected.items():
            with rasterio.open(tmp_path / interleave / f"{name}.img") as mine:
                np.testing.assert_array_equal(mine.read(), level)


def test_levels_of_an_array_are_those_of_the_same_geotiff(program: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(BANDS, 150, 90)
    np.save(tmp_path / "scene.npy", pixels)
    write_scene(tmp_path / "scene.tif", pixels, COAST_BANDS)
    code, out, err = eosfm(
        program,
        "run",
        COAST,
        tmp_path / "scene.npy",
        "-o",
        tmp_path / "c",
        "--json",
        "--overlap",
        64,
    )
    assert (code, err) == (0, "")
    report = run_scene(COAST, tmp_path / "scene.tif", tmp_path / "python", RunOptions(overlap=64))
    found = json.loads(out)
    assert found["output"] == str(tmp_path / "c")
    assert found["report"]["tiles"] == report.tiles
    assert found["report"]["megapixels"] == pytest.approx(report.megapixels)
    for name, level in npy_levels(tmp_path / "c").items():
        with rasterio.open(tmp_path / "python" / f"{name}.tif") as theirs:
            np.testing.assert_array_equal(level, theirs.read())
        path = tmp_path / "c" / f"{name}.npy"
        assert found["report"]["bytes"][path.name] == path.stat().st_size


@given(
    dtype=st.sampled_from(DTYPES),
    height=st.integers(1, 170),
    width=st.integers(1, 170),
    overlap=st.sampled_from([-1, 0, 96]),
    how=st.sampled_from(["npy", *INTERLEAVES, "pipe-bil", "pipe-bip"]),
    start=st.sampled_from([0, 3, 5000]),
    seed=st.integers(0, 99),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_way_of_storing_gives_the_library_s_levels(
    program: Path,
    context: Context,
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    height: int,
    width: int,
    overlap: int,
    how: str,
    start: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("stored")
    most = min(np.iinfo(dtype).max, 4000) if np.dtype(dtype).kind in "ui" else 4000
    values = np.random.default_rng(seed).integers(1, most, (BANDS, height, width), endpoint=True)
    pixels = values.astype(dtype)
    pixels[:, : height // 3, : width // 2] = 0  # no data
    scene: object = folder / "scene"
    command: list[Any] = ["run", COAST, scene, "-o", folder / "c", "--threads", 1]
    if overlap >= 0:
        command += ["--overlap", overlap]
    stdin = b""
    if how == "npy" or dtype == "i1":  # ENVI has no signed bytes
        np.save(folder / "scene.npy", pixels)
        command[2] = folder / "scene.npy"
    else:
        interleave = how.removeprefix("pipe-")
        raw = b"x" * start + pixels.transpose(INTERLEAVES[interleave]).tobytes()
        header = envi_header(dtype, interleave, pixels.shape, **{"header offset": start})
        (folder / "scene.hdr").write_text(header)
        if how.startswith("pipe-"):
            command[2], stdin = "-", raw
            command += ["--header", folder / "scene.hdr"]
        else:
            (folder / "scene").write_bytes(raw)
    code, _, err = eosfm(program, *command, stdin=stdin)
    assert (code, err) == (0, "")
    expected = streamed(context, pixels, overlap)
    for number, level in enumerate(expected, start=1):
        if (path := folder / "c" / f"level{number}.npy").exists():
            mine = np.load(path)
        else:
            raw_cells = np.fromfile(folder / "c" / f"level{number}.img", "<f4")
            mine = raw_cells.reshape(*level.shape[1:], level.shape[0])
        np.testing.assert_array_equal(mine.transpose(2, 0, 1), level)


def test_only_the_wanted_levels_are_written(program: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", scene_pixels(BANDS, 128, 128))
    for levels, output in (("1,2,3,4", "all"), ("2,4", "some")):
        arguments = ("run", COAST, tmp_path / "scene.npy", "-o", tmp_path / output)
        assert eosfm(program, *arguments, "--levels", levels)[0] == 0
    some, every = npy_levels(tmp_path / "some"), npy_levels(tmp_path / "all")
    assert set(some) == {"level2", "level4"} and set(every) == {f"level{i}" for i in range(1, 5)}
    for name, level in some.items():
        np.testing.assert_array_equal(level, every[name])


def test_numpy_s_own_reader_takes_every_header(program: Path, tmp_path: Path) -> None:
    """Of all lengths that a shape's text can have: the header is padded to 64 bytes."""
    for width in (1, 40, 399, 4000):
        np.save(tmp_path / "scene.npy", scene_pixels(BANDS, 4, width))
        output = tmp_path / str(width)
        assert eosfm(program, "run", COAST, tmp_path / "scene.npy", "-o", output)[0] == 0
        level = np.load(output / "level1.npy")
        assert level.shape == (1, -(-width // 4), 120) and level.dtype == np.dtype("<f4")
        assert (output / "level1.npy").stat().st_size % 4 == 0


def test_memory_does_not_grow_with_the_scene(program: Path, tmp_path: Path) -> None:
    """Peaks, as the system counts them, of scenes of 2 and of 40 tiles' height."""
    if "asan" in str(program):
        pytest.skip("the sanitizer has memory of its own")
    peaks = []
    for height in (256, 5120):
        np.save(tmp_path / "scene.npy", np.ones((BANDS, height, 128), np.uint8))
        command = ("run", COAST, tmp_path / "scene.npy", "-o", tmp_path / str(height))
        pid = os.posix_spawn(
            program, [str(part) for part in (program, *command, "--threads", "1")], os.environ
        )
        _, status, usage = os.wait4(pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss)
    assert peaks[1] <= peaks[0] + 512, f"kilobytes of {peaks}"


def test_the_memory_limit_counts(program: Path) -> None:
    needs = bundle_sizes(COAST, read_manifest(COAST)).memory
    assert needs is not None
    enough = f"{needs.weights_bytes * 3 / 1e6:.1f}MB"
    assert eosfm(program, "verify", COAST, "--threads", 1, "--memory-limit", enough)[0] == 0
    code, out, err = eosfm(program, "verify", COAST, "--memory-limit", "1MB")
    assert (code, out) == (2, "") and "--memory-limit" in err


# Pages


def documented() -> list[str]:
    """Return the command lines of the program that the pages show."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    commands = re.compile(r"^ {4,}(?:\w+ \| )?(eosfm (?:verify|run|bench) [^>\n]*)", re.MULTILINE)
    found = [line for page in pages for line in commands.findall(page.read_text())]
    assert len(found) >= 5
    return found


@pytest.mark.parametrize("line", documented())
def test_documented_commands_are_accepted(program: Path, tmp_path: Path, line: str) -> None:
    """Only the bundle, which is not there, is wrong with them."""
    code, out, err = eosfm(program, *shlex.split(line)[1:], cwd=tmp_path)
    assert (code, out) == (2, "") and "it is not there" in err


def test_the_page_lists_every_option_and_its_verbs(program: Path) -> None:
    page = (ROOT / "docs" / "program.md").read_text()
    rows = re.findall(r"^\| (?:`-\w`, )?`(--[\w-]+)` \| ([^|]*) \|", page, re.M)
    listed = {name: set(re.findall(r"\w+", verbs)) for name, verbs in rows}
    verbs = ("verify", "run", "bench")
    shown = {verb: set(re.findall(r"--[\w-]+", options_of(program, verb))) for verb in verbs}
    for verb in verbs:
        expected = {name for name, those in listed.items() if those & {verb, "all"}}
        assert shown[verb] == expected | {"--help"}


def options_of(program: Path, verb: str) -> str:
    return eosfm(program, verb, "--help")[1].partition("\noptions:\n")[2]


# Headers


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " \t\n"),
        lambda text: text.replace("samples", " ; a = {comment\n\nsamples"),
        lambda text: re.sub(r"(?m)^[\w ]+=", lambda key: f" {key[0].title()} ", text),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("{\n", "{").replace(",\n", ", "),
        lambda text: text.replace("byte order", "sensor type = Unknown\nempty =\nbyte order"),
    ],
)
def test_envi_headers_of_other_programs_are_read(
    program: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    pixels = scene_pixels(BANDS, 40, 50)
    scene = write_envi(tmp_path / "scene.img", pixels)
    assert eosfm(program, "run", COAST, scene, "-o", tmp_path / "plain")[0] == 0
    header = scene.with_suffix(".hdr")
    text = change(header.read_text().replace("description = {\n", "description = {", 1))
    header.write_bytes(text.encode())
    code, _, err = eosfm(program, "run", COAST, scene, "-o", tmp_path / "changed")
    assert (code, err) == (0, "")
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "changed" / path.name).read_bytes()
