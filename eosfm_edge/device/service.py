"""An example of a systemd unit that runs a bundle over one scene, whose name is the instance's."""

from __future__ import annotations

from eosfm_edge.formats.bundle import Purpose
from eosfm_edge.formats.target import Profile

UNIT_NAME = "eosfm@.service"


def service(profile: Profile, bundle: str, purpose: Purpose) -> str:
    """Return the unit: ``systemctl start eosfm@SCENE`` for what is in /data/scenes."""
    backend = "native"
    if purpose != "native" and profile.engine == "tensorrt":
        backend = "tensorrt"
    elif purpose == "onnx":
        backend = "onnxruntime"
    # The program needs nothing that could be missing when the board starts; it has no other engine.
    command, chosen, check = f"/opt/eosfm/{bundle}/device/bin/eosfm", "", ""
    ending = ".npy"
    if backend != "native":
        command, chosen = "/opt/eosfm/venv/bin/eosfm-edge", f" --backend {backend}"
        check, ending = (chosen if purpose == "onnx" else ""), ""
    limit = f"\nMemoryMax={profile.memory_mb // 2}M" if profile.memory_mb else ""
    # The GPU's device nodes belong to these groups in JetPack.
    groups = "\nSupplementaryGroups=video render" if backend == "tensorrt" else ""
    return f"""\
# An example: adapt the paths and the user. Install as /etc/systemd/system/{UNIT_NAME}, then
# systemctl start eosfm@SCENE{ending} runs the bundle over /data/scenes/SCENE{ending}.
[Unit]
Description=Features of the scene %i by {bundle}
ConditionPathExists=/data/scenes/%i

[Service]
Type=oneshot
User=eosfm{groups}
ExecStartPre={command} verify /opt/eosfm/{bundle}{check}
ExecStart={command} run /opt/eosfm/{bundle} /data/scenes/%i \
-o /data/features/%i{chosen} --overwrite
TimeoutStartSec=30min{limit}
Nice=5

# It reads scenes and the bundle, and writes features: nothing else is open to it.
ProtectSystem=strict
ReadWritePaths=/data/features
ProtectHome=yes
PrivateTmp=yes
PrivateNetwork=yes
NoNewPrivileges=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""
