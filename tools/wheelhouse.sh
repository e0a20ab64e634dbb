#!/usr/bin/env bash
# Collects wheels for a machine without network (docs/clusters.md), with checksums and what installs them:
#
#     tools/wheelhouse.sh wheels                                    # all of requirements.lock, several GB
#     WITHOUT='torch|torchvision|nvidia.*|cuda.*|triton' tools/wheelhouse.sh wheels      # it has torch
#     tools/wheelhouse.sh wheels hydra-core omegaconf antlr4-python3-runtime gymnasium   # these alone
#
# Versions are those of requirements.lock, for Python $PYTHON on $PLATFORM, whatever runs here. Carry the folder
# over, then there: wheels/install.sh [python]. The same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${1:?give a folder for the wheels} && shift
PYTHON=${PYTHON:-3.12}
PLATFORM=${PLATFORM:-manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux_2_5_x86_64 manylinux1_x86_64 linux_x86_64}
WITHOUT=${WITHOUT:-}
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
[ -x .venv/bin/python ] || pip() { python3 -m pip --disable-pip-version-check --quiet "$@"; }

# name==version of the lock, for Linux: markers are those of other systems and other Pythons.
locked() { sed -n "s/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p" <(grep -v "sys_platform == 'win32'\|sys_platform == 'darwin'" requirements.lock); }

chosen() {
    if [ $# -gt 0 ]; then
        for name in "$@"; do
            locked | grep -i "^$name==" || { echo "requirements.lock has no $name" >&2 && exit 1; }
        done
    else
        locked | grep -viE "^(${WITHOUT:-nothing})=="
    fi
}

mkdir -p "$OUT"
for_target=(--no-deps --only-binary=:all: --implementation cp --python-version "$PYTHON")
for tag in $PLATFORM; do for_target+=(--platform "$tag"); done
list=$(chosen "$@")
for wanted in $list; do
    if ! pip download "${for_target[@]}" --dest "$OUT" "$wanted" 2> "$OUT/.error"; then
        # Some have no wheel at all. One of Python alone can be made here.
        pip wheel --no-deps --wheel-dir "$OUT/.made" "$wanted"
        for wheel in "$OUT"/.made/*.whl; do
            [[ $wheel == *-none-any.whl ]] || { cat "$OUT/.error" >&2; echo "$wanted has no wheel for $PYTHON on $PLATFORM, and cannot be made elsewhere" >&2; exit 1; }
            mv "$wheel" "$OUT/"
        done
    fi
    echo "· $wanted"
done
pip wheel --no-deps --wheel-dir "$OUT" .
echo "· scd_world itself"
rm -rf "$OUT/.made" "$OUT/.error"

cat > "$OUT/install.sh" <<'INSTALL'
#!/usr/bin/env bash
# Checks the wheels beside this script and installs them, from nowhere else: install.sh [python]
set -euo pipefail
cd "$(dirname "$0")"
sha256sum --quiet --check SHA256SUMS
# --no-deps: the wheels are a locked set, and what was left out of it this machine has.
"${1:-python3}" -m pip install --no-index --no-deps ./*.whl
INSTALL
chmod +x "$OUT/install.sh"
(cd "$OUT" && sha256sum ./*.whl > SHA256SUMS)
echo "$(find "$OUT" -name '*.whl' | wc -l) wheels, $(du -sh "$OUT" | cut -f1), in $OUT: carry it over and run $OUT/install.sh"
