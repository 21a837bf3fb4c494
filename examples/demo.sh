#!/bin/sh
# A small bundle over a real Sentinel-2 scene: features, a picture, and what to do next. No PyTorch.
#
# usage: sh examples/demo.sh [FOLDER]      (eosfm-edge, pip and python on the PATH)
set -eu

out=${1:-build/demo}
here=$(dirname "$0")
bundle=$here/demo/coast.eosfm

step() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

sh "$here/scene.sh" "$out"
step eosfm-edge verify "$bundle"
step eosfm-edge run "$bundle" "$out/scene" -o "$out/features" --quicklook --overwrite

cat <<END

The picture, what came in and what the network sees in it:
    $out/features/quicklook.png

The verdict on the bundle:
    $(python "$here/demo/verdict.py" "$bundle")

Next:
    eosfm-edge run $bundle YOUR_SCENE -o features --quicklook
    eosfm-edge bench $bundle --backend native
    make road        the way here, with PyTorch: import, prune, calibrate, export, before and after
The first two are in $(dirname "$(command -v eosfm-edge)").
END
