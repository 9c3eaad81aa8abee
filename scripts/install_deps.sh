#!/usr/bin/env bash
# Installs what is missing of the packages that building and testing need; this is their only list.
# For Debian 12 and Ubuntu 24.04, through apt-get (with sudo when not root). Quick when nothing is missing.
#
#   scripts/install_deps.sh              install them
#   scripts/install_deps.sh --libraries  only name those that are compiled and linked against, MPI aside
set -euo pipefail

# What Debian packages of oneDNN looks for OpenCL, GPU or not.
libraries=(
  libdnnl-dev ocl-icd-opencl-dev
  libhdf5-dev libsentencepiece-dev libxxhash-dev zlib1g-dev libzstd-dev
  libcli11-dev libfmt-dev libtomlplusplus-dev nlohmann-json3-dev
  libgtest-dev libbenchmark-dev
)
if [ "${1-}" = --libraries ]; then
  printf '%s\n' "${libraries[@]}"
  exit
fi
packages=(
  # tools
  g++ cmake ninja-build ccache pkg-config
  "${libraries[@]}"
  libopenmpi-dev openmpi-bin
  # programs that tests start
  hdf5-tools
)
# For slurm_test and report_browser_test, which skip themselves without: only where packages may not start
# daemons, as in container images. Slurm brings some, which the test starts by itself; a browser is not for a
# desktop that has one. Ubuntu's package of Chromium is a snap.
if [ -x /usr/sbin/policy-rc.d ] && ! /usr/sbin/policy-rc.d munge start >/dev/null 2>&1; then
  packages+=(munge slurm-wlm)
  if grep -qxs 'ID=debian' /etc/os-release; then packages+=(chromium); fi
fi

fail() {
  echo "install_deps: $*" >&2
  exit 1
}

if ! command -v apt-get >/dev/null; then
  for tool in g++ cmake ninja pkg-config; do
    command -v $tool >/dev/null ||
      fail "no apt-get here and no $tool; install what Debian calls: ${packages[*]}"
  done
  echo "install_deps: no apt-get here; going on with what is installed" >&2
  exit 0
fi

installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qxF "installed $package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null ||
    fail "not root, and no sudo; have somebody run: apt-get install ${missing[*]}"
  as_root=(sudo)
fi
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1
}
echo "Installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt update || true # one unreachable source need not matter; then install says what does
if ! apt install -y --no-install-recommends "${missing[@]}"; then
  tail -n 20 "$log" >&2
  fail "apt-get could not install them, see above"
fi
