"""The page that says how a bundle is put on a device: exact commands, for each of its systems."""

from __future__ import annotations

from collections.abc import Iterator

from eosfm_edge.device.service import UNIT_NAME
from eosfm_edge.formats.bundle import Purpose
from eosfm_edge.formats.target import Profile, System

_OLDEST_PYTHON = (3, 10)
_OLDEST_TENSORRT = (8, 6)
_WHEEL = """\
No package index has eosfm-edge yet: WHEEL is the one for aarch64 that `make wheels` leaves in
`dist/` of a checkout."""


def readme(profile: Profile, bundle: str, purpose: Purpose, glibc: str, library_sha256: str) -> str:
    """Return the page, in Markdown.

    Args:
        profile: the device's.
        bundle: its name: ``six.eosfm``.
        purpose: who is to compute.
        glibc: that the library is linked for.
        library_sha256: of the library.
    """
    sections = [
        _head(profile, bundle),
        _program(bundle, purpose),
        *_systems(profile, bundle, purpose),
        _c(bundle, purpose, glibc, library_sha256),
        _power(profile, bundle, purpose),
    ]
    return "\n".join(section for section in sections if section)


def _head(profile: Profile, bundle: str) -> str:
    return f"""\
# {bundle} on {profile.summary}

What has been tried: {profile.experience}.

Copy the whole folder to the device, with this one in it:

    rsync -a {bundle} DEVICE:/opt/eosfm/

The commands below are for the device, in /opt/eosfm. `{UNIT_NAME}` is an example of a service.
"""


def _program(bundle: str, purpose: Purpose) -> str:
    if purpose == "onnx":
        return ""
    program = f"{bundle}/device/bin/eosfm"
    return f"""\
## Without Python

`device/bin/eosfm` needs no library and no interpreter. Does this device compute the known answer,
how fast is it, and what is a scene's:

    {program} verify {bundle}
    {program} bench {bundle}
    {program} run {bundle} SCENE.npy -o features

It computes on the CPU. A scene is a NumPy array [bands][height][width], or raw pixels with an ENVI
header, as `gdal_translate -of ENVI` writes them; `{program} run --help` says more. It does
not check SHA-256 of the files: do that before they are sent, with `eosfm-edge verify {bundle}`.
"""


def _systems(profile: Profile, bundle: str, purpose: Purpose) -> Iterator[str]:
    """Give a section for each set of commands, named after the systems that it is for."""
    names: dict[str, list[str]] = {}
    for system in profile.systems:
        name = system.name + (f" (TensorRT {system.tensorrt})" if system.tensorrt else "")
        names.setdefault(_commands(profile, system, bundle, purpose), []).append(name)
    for commands, systems in names.items():
        yield f"## On {', '.join(systems)}\n\n{commands}"


def _commands(profile: Profile, system: System, bundle: str, purpose: Purpose) -> str:
    if system.python and _numbers(system.python) < _OLDEST_PYTHON:
        return (
            f"Its Python {system.python} is older than eosfm-edge runs on (3.10): use "
            + ("`device/bin/eosfm`, or " if purpose != "onnx" else "")
            + "the library from C, as below.\n"
        )
    has_tensorrt = profile.engine == "tensorrt" and _numbers(system.tensorrt) >= _OLDEST_TENSORRT
    if purpose != "native" and has_tensorrt:
        return _tensorrt(profile, system, bundle, purpose)
    backend = "onnxruntime" if purpose == "onnx" else "native"
    chosen = "" if backend == "native" else f" --backend {backend}"
    return f"""\
{_WHEEL}

    python3 -m venv venv
    venv/bin/pip install 'WHEEL[run]'
    venv/bin/eosfm-edge verify {bundle}{chosen}
    venv/bin/eosfm-edge bench {bundle} --backend {backend}
    venv/bin/eosfm-edge run {bundle} SCENE -o features{chosen}

SCENE is anything that GDAL reads, or a product.
"""


def _tensorrt(profile: Profile, system: System, bundle: str, purpose: Purpose) -> str:
    cuda = (system.cuda or "").split(".")[0]
    verify, others, fallback = "", "", "`run` says so and stops"
    if purpose == "all":
        verify = f"    venv/bin/eosfm-edge verify {bundle}\n"
        others, fallback = " --backend native", "`run` says so and computes on the CPU"
    return f"""\
TensorRT comes with the system; the environment must see its Python module.
{_WHEEL}
    sudo apt install nvidia-jetpack python3-venv
    python3 -m venv --system-site-packages venv
    venv/bin/pip install 'WHEEL[run]' 'cuda-bindings=={cuda}.*'
    venv/bin/eosfm-edge doctor
{verify}    venv/bin/eosfm-edge build {bundle}
    venv/bin/eosfm-edge verify {bundle} --backend tensorrt
    venv/bin/eosfm-edge bench {bundle} --backend tensorrt{others}
    venv/bin/eosfm-edge run {bundle} SCENE -o features --backend tensorrt

`build` takes minutes and at most {profile.workspace_mb} MB of workspace. Engines stay in the
bundle; after an update of the system it builds them again. If TensorRT, the GPU or the known answer
fails, {fallback}.
"""


def _c(bundle: str, purpose: Purpose, glibc: str, library_sha256: str) -> str:
    backends = "" if purpose != "onnx" else ' "onnxruntime-cuda onnxruntime"'
    graphs = ""
    if purpose == "all":
        graphs = """
With `"onnxruntime-cuda native"` as a second argument it says whether ONNX Runtime could compute
here, by `lib/libeosfm_onnxruntime.so`; `EOSFM_ONNXRUNTIME` is where the board has its
`libonnxruntime.so`."""
    elif purpose == "onnx":
        graphs = """
ONNX Runtime computes, by `lib/libeosfm_onnxruntime.so`; `EOSFM_ONNXRUNTIME` is where the board has
its `libonnxruntime.so`."""
    return f"""\
## From C

`lib/libeosfm.so.0` is linked for glibc {glibc} and needs nothing else; `ldd --version` shows what
the device has. Its SHA-256 is

    {library_sha256}

Is it what was exported, and does this device compute the known answer?

    cd {bundle}/device
    sha256sum lib/libeosfm.so.0
    gcc -std=c99 -Iinclude examples/verify.c lib/libeosfm.so.0 -Wl,-rpath,$PWD/lib -o verify
    ./verify ..{backends}
{graphs}
`examples/run_tile.c` runs an image, and `include/eosfm.h` is the manual.
"""


def _power(profile: Profile, bundle: str, purpose: Purpose) -> str:
    if not profile.power_modes:
        return ""
    program = f"{bundle}/device/bin/eosfm"
    if purpose == "onnx" or (purpose == "all" and profile.engine == "tensorrt"):
        program = "venv/bin/eosfm-edge"
    modes = ", ".join(f"{mode.name} ({mode.watts:g} W)" for mode in profile.power_modes)
    return f"""\
## Power

The modes are {modes}. `nvpmodel` sets one; before measuring, fix the clocks:

    sudo nvpmodel -q
    sudo jetson_clocks
    {program} bench {bundle} --json > bench.json
"""


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (version or "0").split("."))[:2]
