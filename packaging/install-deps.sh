#!/bin/bash
# Installs the Debian packages that a group of make targets needs, and only those that are missing.
#
#   packaging/install-deps.sh GROUP...      GROUP is build, demo, check or bench
#   packaging/install-deps.sh --list GROUP...
#
# Written for Debian 12. Needs root only when something is missing. Services that packages bring (nginx, varnish,
# h2o, Traffic Server) are neither started nor enabled: tests and benchmarks start their own copies on free ports.
# A word `package:command` is satisfied by that command too, however it came to the machine (Node.js often comes from
# elsewhere than Debian).
set -euo pipefail

build='gcc clang make pkg-config libc6-dev liburing-dev libssl-dev libjemalloc-dev libxxhash-dev libcyaml-dev
       libyaml-dev libjansson-dev libsystemd-dev libc-ares-dev libnghttp2-dev libmaxminddb-dev'
demo='python3 curl ffmpeg frozen-bubble-data nodejs:node npm:npm'
check="$demo libcmocka-dev python3-pytest nginx-light libnginx-mod-stream libclang-rt-14-dev clang-tidy clang-format cppcheck chromium
       wrk dnsmasq-base libmaxmind-db-writer-perl openssl nghttp2-client python3-hpack"
bench='python3 nginx-light varnish trafficserver h2o wrk nghttp2-client openssl linux-perf curl'

# What these packages would start at boot from the day that they are installed.
services='nginx varnish varnishncsa trafficserver h2o'

die() { printf 'install-deps: %s\n' "$*" >&2; exit 1; }

wanted() {
    local group
    for group in "$@"; do
        case $group in
            build|demo|check|bench) printf '%s\n' ${!group} ;;
            *) die "no group '$group'; there are: build demo check bench" ;;
        esac
    done
}

# Prints those of its arguments that are not there. One dpkg-query for all of them keeps the usual case instant.
missing() {
    local word have
    # It fails when any package is unknown to dpkg, which is no error here.
    have=" $(dpkg-query -W -f='${Package}=${db:Status-Status} ' "${@%%:*}" 2>/dev/null || true) "
    for word in "$@"; do
        case $have in *" ${word%%:*}=installed "*) continue ;; esac
        case $word in *:*) ! command -v "${word#*:}" >/dev/null || continue ;; esac
        printf '%s\n' "${word%%:*}"
    done
}

# dpkg's maintainer scripts ask this helper whether they may start a service; 101 is no. An operator's own stays.
forbid_services() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e $policy ] || return 0
    trap "rm -f $policy" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
}

# Newly installed services would come up at the next boot, and nginx and varnish with a port open to the network.
disable_services() {
    local unit
    command -v systemctl >/dev/null || return 0
    for unit in "$@"; do
        systemctl --root=/ disable "$unit.service" >/dev/null 2>&1 || true
    done
}

install() {
    local unit new_units=()
    export DEBIAN_FRONTEND=noninteractive
    for unit in $services; do
        [ -e "/lib/systemd/system/$unit.service" ] || new_units+=("$unit")
    done

    # The lists may be absent (a fresh machine) or too old to name files that the mirror still has. A simulation
    # tells the first, a failed installation the second.
    local get=(apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    if ! apt-get -s -qq install --no-install-recommends "$@" >/dev/null 2>&1; then
        "${get[@]}" update || die 'apt-get update failed'
    fi
    forbid_services
    "${get[@]}" install --no-install-recommends "$@" ||
        { "${get[@]}" update && "${get[@]}" install --no-install-recommends "$@"; } ||
        die "apt-get could not install: $*"
    disable_services "${new_units[@]}"
}

only_list=no
if [ "${1-}" = --list ]; then only_list=yes; shift; fi
[ $# -gt 0 ] || die 'usage: install-deps.sh [--list] GROUP...   (build demo check bench)'
words=$(wanted "$@") # An unknown group ends the script here, not in a pipe where it would be lost.
mapfile -t need < <(sort -u <<<"$words")
if [ $only_list = yes ]; then printf '%s\n' "${need[@]%%:*}"; exit; fi

command -v dpkg-query >/dev/null || die "this is not Debian; install these by hand: ${need[*]%%:*}"
mapfile -t lack < <(missing "${need[@]}")
[ ${#lack[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    die "missing packages. As root, run:
    apt-get update && apt-get install --no-install-recommends ${lack[*]}"
fi
printf 'Installing: %s\n' "${lack[*]}"
install "${lack[@]}"
mapfile -t lack < <(missing "${need[@]}")
[ ${#lack[@]} -eq 0 ] || die "still missing after the installation: ${lack[*]}"
