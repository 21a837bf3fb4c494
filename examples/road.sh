#!/bin/sh
# The whole road: trained specialists in, a bundle of half the cost in int8 out, and both over a scene.
#
# usage: sh examples/road.sh [FOLDER]      (eosfm-edge with PyTorch, and pip, on the PATH)
set -eu

out=${1:-build/demo}
here=$(dirname "$0")

step() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

sh "$here/scene.sh" "$out"
step eosfm-edge import \
    "$here/specialists/eurosat_rgb/model.safetensors" \
    "$here/specialists/mining_rgb/model.safetensors" \
    "$here/specialists/landuse_s2/model.safetensors" \
    "$here/specialists/landcover_l2a/model.safetensors" \
    "$here/specialists/landcover_sar/model.safetensors" \
    "$here/specialists/clouds_6band/model.safetensors" \
    "$here/specialists/ensemble.safetensors" \
    -o "$out/six" --data "$out/scene" --overwrite
step eosfm-edge prune "$out/six" --ratio 0.5 -o "$out/six-50" --overwrite
step eosfm-edge calibrate "$out/six-50" -o "$out/six-50-int8" --overwrite
step eosfm-edge export "$out/six" --target cpu --precision fp32 --for all -o "$out/six.eosfm" --overwrite
step eosfm-edge export "$out/six-50" --target cpu --precision int8 --calibration "$out/six-50-int8" -o "$out/six-50.eosfm" --overwrite
step eosfm-edge run "$out/six.eosfm" "$out/scene" -o "$out/before" --overwrite
step eosfm-edge run "$out/six-50.eosfm" "$out/scene" -o "$out/after" --quicklook --beside "$out/before" --overwrite

cat <<END

The picture: six specialists, and what is left of them, side by side
    $out/after/quicklook.png

Next
    eosfm-edge bench $out/six-50.eosfm --backend native
    eosfm-edge deploy $out/six --target raspberry-pi-5 --budget 40ms --max-drop 1
    eosfm-edge inspect $out/six-50.eosfm
END
