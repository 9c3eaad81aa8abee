#!/usr/bin/env bash
# A corpus that every machine with a compiler has: its C and C++ headers, about 20 MB of text.
#
#   scripts/header_corpus.sh QSTEP CORPUS.h5    QSTEP: the program; nothing is done when the corpus is there
set -euo pipefail

if [ $# != 2 ]; then
  sed -n '2,4s/^# \?//p' "$0" >&2
  exit 2
fi
if [ -e "$2" ]; then
  echo "$2 is there already."
  exit
fi
exec "$1" data prepare /usr/include/c++ /usr/include/linux /usr/include/*-linux-gnu/{asm,bits,sys} \
  /usr/include/*.h --glob '*' --vocab-size 4096 -o "$2"
