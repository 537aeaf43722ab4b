#!/bin/sh
# bench/profile.sh [KIB [SECONDS]] [--set] [--server NAME]: the top functions of segue-edge (or of a peer) under the
# bench's load, user and kernel apart. Without sizes: 32 KiB for 5 seconds.
exec /usr/bin/python3 "$(dirname "$0")/profile.py" "$@"
