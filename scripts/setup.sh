#!/usr/bin/env bash
# Makes .venv with everything Encore needs. Running it again costs a fraction of a second when nothing changed.
#   ENCORE_PYTHON=/path/to/python   use this Python instead of looking for one
#   ENCORE_APT=no                   never call apt; only say what is missing
# Where ROS 2 Jazzy is sourced, .venv stands on that ROS; elsewhere rclpy and the messages come as wheels.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.encore-setup  # written last: what the finished .venv was made from
base=$venv/.encore-base  # written first: the Python and the place it was made for
# The wheels' start-up hook runs once a process tree; a marker inherited from another environment would stop it here.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${ENCORE_PYTHON:-}" ]; then
        supported "$ENCORE_PYTHON" || fail "ENCORE_PYTHON=$ENCORE_PYTHON is no working Python 3.10, 3.11 or 3.12"
        command -v "$ENCORE_PYTHON"
        return
    fi
    for candidate in python3 python3.12 python3.11 python3.10; do
        if supported "$candidate"; then command -v "$candidate"; return; fi
    done
    fail "no Python 3.10, 3.11 or 3.12 found ($(python3 --version 2>&1 || true)); on Debian or Ubuntu:" \
        "    sudo apt-get install python3 python3-venv" \
        "or name one: ENCORE_PYTHON=/path/to/python3.11 make setup"
}

libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true)
has_library() { grep -q "$1" <<<"$libraries"; }  # no pipe: grep -q ends early, and pipefail would call that missing

missing_packages() {
    has_library 'libOSMesa\.so' || echo libosmesa6      # off-screen rendering
    has_library 'libGL\.so\.1' || echo libgl1           # OpenCV
    has_library 'libgthread-2\.0\.so' || echo libglib2.0-0
    "$python" -c 'import ensurepip, venv' 2>/dev/null \
        || "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

install_packages() {
    local -a missing root=()
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    local advice="sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    [ "$(uname -s)" = Linux ] && command -v apt-get >/dev/null \
        || fail "missing system libraries; install your system's equivalents of: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null && root=(sudo -n) \
            || fail "missing system packages, and no right to install them. Please run:" "    $advice"
    fi
    [ "${ENCORE_APT:-yes}" != no ] || fail "missing system packages, and ENCORE_APT=no. Please run:" "    $advice"
    say "installing ${missing[*]} with apt"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq \
        || say "apt-get update failed; trying with the lists that are there"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        || fail "apt could not install them. Please run:" "    $advice"
}

uses_sourced_ros() { [ "${ROS_DISTRO:-}" = jazzy ] && "$python" -c 'import rclpy' 2>/dev/null; }

python_and_place() {
    "$python" -c 'import platform, sys; print(sys.base_prefix, platform.python_version())'
    echo "$extras $PWD"
}

python=$(find_python)
install_packages
extras=ros,dev
options=()
if uses_sourced_ros; then
    extras=dev
    options=(--system-site-packages)
fi
wanted_base=$(python_and_place)
wanted=$(echo "$wanted_base"; sha256sum setup.py package.xml constraints.txt pyproject.toml)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

say "$("$python" --version)${options[*]:+, on the sourced ROS 2 $ROS_DISTRO}, into $venv; the first time takes some minutes"
rm -f "$stamp"
# A .venv of another Python or place cannot be mended. One that was interrupted, or has other versions, can.
if [ ! -f "$base" ] || [ "$(cat "$base")" != "$wanted_base" ]; then
    "$python" -m venv --clear "${options[@]}" "$venv"
    printf '%s\n' "$wanted_base" >"$base"
fi
"$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e ".[$extras]"
printf '%s\n' "$wanted" >"$stamp"
say "done; 'make help' lists what can be done now"
