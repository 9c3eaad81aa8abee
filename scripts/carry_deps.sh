#!/usr/bin/env bash
# Packs what building qstep takes beside a compiler, CMake and CUDA, for a machine that has only these: headers, CMake's
# and pkg-config's files, shared libraries and all that those load, and pkg-config itself. Not MPI: without it qstep is
# one process. Packages say what belongs to what, on Debian and Ubuntu.
#
#   scripts/carry_deps.sh pack FILE.tar.gz             where the packages of scripts/install_deps.sh are installed
#   scripts/carry_deps.sh unpack FILE.tar.gz FOLDER    where they are not: FOLDER/usr becomes a prefix for CMake,
#                                                      FOLDER/pkg-config a pkg-config that knows it
#
# What is packed works with the compiler and the C library of this machine's version and of later ones.
set -euo pipefail
readonly here=$(dirname "${BASH_SOURCE[0]}")

fail() {
  echo "carry_deps: $*" >&2
  exit 1
}

# add PATH: a file to its place below $staging; a link as a link, with the file that it leads to
add() {
  local path=$1 real
  case $path in /lib/*) path=/usr$path ;; esac # the same folder by another name
  real=$(readlink -f "$path")
  if [ -f "$real" ] && [ ! -e "$staging$real" ]; then install -D -p "$real" "$staging$real"; fi
  if [ -L "$path" ]; then
    mkdir -p "$staging$(dirname "$path")"
    ln -sfr "$staging$real" "$staging$path"
  fi
}

# Whether a package comes with every compiler.
with_compiler() {
  case $(dpkg-query -W -f '${source:Package}' "$1") in
    glibc | gcc-* | linux) true ;;
    *) false ;;
  esac
}

# Packages and those of headers that they depend on, directly or not.
with_headers() {
  local package
  dpkg-query -W -f '${Depends}\n' "$@" | tr ',|' '\n\n' | grep -oE '[^ ]+-(dev|headers)\b' | cat - <(printf '%s\n' "$@") |
    sort -u | while read -r package; do
    if dpkg-query -s "$package" >/dev/null 2>&1 && ! with_compiler "$package"; then echo "$package"; fi
  done
}

# The libraries that the files on standard input load, but for those of the compiler.
loaded() {
  local path real packages
  xargs ldd | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p' | sort -u | while read -r path; do
    real=$(readlink -f "$path")
    packages=$(dpkg-query -S "$real" "${real#/usr}" 2>/dev/null) || true # the package has one of the two names
    [ -n "$packages" ] || fail "no package has $path"
    with_compiler "${packages%%: *}" || echo "$path"
  done
}

pack() {
  local packages more path
  command -v dpkg-query >/dev/null || fail "no dpkg-query here: packing takes a Debian or Ubuntu machine"
  mapfile -t packages < <("$here/install_deps.sh" --libraries)
  dpkg-query -s "${packages[@]}" >/dev/null || fail "run scripts/install_deps.sh first"
  until mapfile -t more < <(with_headers "${packages[@]}") && [ "${#more[@]}" = "${#packages[@]}" ]; do
    packages=("${more[@]}")
  done
  readonly staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  dpkg-query -L "${packages[@]}" >"$staging/listed"
  while read -r path; do
    if [ -d "$path" ] && [ ! -L "$path" ]; then continue; fi
    # Static libraries are many times the size of shared ones.
    if [[ $path == *.a && -e ${path%.a}.so ]]; then continue; fi
    add "$path"
  done < <(grep -E '^/usr/(include|lib|share/(cmake|pkgconfig))/' "$staging/listed")
  add /usr/bin/pkg-config
  find "$staging/usr" -type f '(' -name '*.so*' -o -path '*/bin/*' ')' | loaded >"$staging/loaded"
  while read -r path; do add "$path"; done <"$staging/loaded"
  /sbin/ldconfig -n "$staging"/usr/lib/*-linux-gnu # links by the names that programs load
  mkdir -p "$(dirname "$1")"
  tar -C "$staging" -czf "$1" usr
  echo "$1: $(du -h "$1" | cut -f1), $(du -sh "$staging/usr" | cut -f1) unpacked"
}

unpack() {
  local folder libraries
  mkdir -p "$2"
  folder=$(cd "$2" && pwd)
  tar -C "$folder" -xzf "$1"
  libraries=$(echo "$folder"/usr/lib/*-linux-gnu)
  cat >"$folder/pkg-config" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$libraries PKG_CONFIG_SYSROOT_DIR=$folder
export PKG_CONFIG_LIBDIR=$libraries/pkgconfig:$folder/usr/share/pkgconfig
exec $folder/usr/bin/pkg-config "\$@"
END
  chmod +x "$folder/pkg-config"
}

case "$#:${1-}" in
  2:pack) pack "$2" ;;
  3:unpack) unpack "$2" "$3" ;;
  *)
    sed -n '2,10s/^# \?//p' "$0" >&2
    exit 2
    ;;
esac
