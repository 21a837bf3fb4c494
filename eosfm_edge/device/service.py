"""An example of a systemd unit that runs a bundle over one scene, whose name is the instance's."""

from __future__ import annotations

from eosfm_edge.formats.bundle import Purpose
from eosfm_edge.formats.target import Profile

UNIT_NAME = "eosfm@.service"


def service(profile: Profile, bundle: str, purpose: Purpose) -> str:
    """Return the unit: ``systemctl start eosfm@SCENE`` for a folder or file in /data/scenes."""
    backend = "native"
    if purpose != "native" and profile.engine == "tensorrt":
        backend = "tensorrt"
    elif purpose == "onnx":
        backend = "onnxruntime"
    check = "" if purpose != "onnx" else f" --backend {backend}"
    limit = f"\nMemoryMax={profile.memory_mb // 2}M" if profile.memory_mb else ""
    # The GPU's device nodes belong to these groups in JetPack.
    groups = "\nSupplementaryGroups=video render" if backend == "tensorrt" else ""
    return f"""\
# An example: adapt the paths and the user. Install as /etc/systemd/system/{UNIT_NAME}, then
# systemctl start eosfm@SCENE runs the bundle over /data/scenes/SCENE.
[Unit]
Description=Features of the scene %i by {bundle}
ConditionPathExists=/data/scenes/%i

[Service]
Type=oneshot
User=eosfm{groups}
ExecStartPre=/opt/eosfm/venv/bin/eosfm-edge verify /opt/eosfm/{bundle}{check}
ExecStart=/opt/eosfm/venv/bin/eosfm-edge run /opt/eosfm/{bundle} /data/scenes/%i \
-o /data/features/%i --backend {backend} --overwrite
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
