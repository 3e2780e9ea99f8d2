#!/usr/bin/env bash
# Adds LIBERO to .venv, which is set up first where it is not (ENCORE_PYTHON, ENCORE_APT: see setup.sh). Running it
# again costs a second when nothing changed.
# What pip would install along with hf-libero (robomimic, torchvision, a CUDA build of torch: gigabytes) is not needed.
# So LIBERO's own packages come without their dependencies, and those that are needed by setup.py's extra `libero`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh </dev/null

python=.venv/bin/python
stamp=.venv/.encore-libero  # written last: what LIBERO was installed from
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME

say() { printf 'libero: %s\n' "$*"; }
pip() { "$python" -m pip --disable-pip-version-check --no-input "$@" </dev/null; }

# A stamp alone would not notice what was uninstalled since.
all_installed() {
    "$python" - "$@" 2>/dev/null <<'END'
import re, sys
from importlib.metadata import requires, version
extra = [line for line in requires("encore") if re.search(r"extra == .libero.", line)]
for name in [*sys.argv[1:], *(re.split(r"[^\w.-]", line)[0] for line in extra)]:
    version(name)
sys.exit(not extra)
END
}

packages=(hf-libero robosuite bddl)
wanted=$(cat .venv/.encore-setup; sha256sum scripts/libero.sh)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && all_installed "${packages[@]}"; then exit 0; fi

say "into .venv; the first time takes some minutes: 260 MB to download"
rm -f "$stamp"
pip install -c constraints.txt -e '.[libero]'
# bddl has to be built; with the setuptools of .venv, so that this goes on working when a newer one no longer can.
pip install -c constraints.txt --no-deps --no-build-isolation "${packages[@]}"
say "importing it; the first time some of it is compiled"
MUJOCO_GL=${MUJOCO_GL:-osmesa} timeout 300 "$python" -m trainer.probes libero </dev/null >/dev/null || {
    say "it is installed but cannot be imported; 'encore doctor' says more" >&2
    exit 1
}
printf '%s\n' "$wanted" >"$stamp"
say "done; 'encore doctor' says whether its assets are there, docs/libero.md where they come from"
