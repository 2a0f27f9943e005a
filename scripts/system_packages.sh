#!/usr/bin/env bash
# What the tests need from the system: a browser, a foreign MQTT broker, a C compiler with libmodbus,
# FUSE, node and an OpenID provider. Installs what is missing where it can; else says what to do. Tests without them skip.
set -u

declare -A package=(
  [chromium]=chromium
  [mosquitto]=mosquitto
  [mosquitto_pub]=mosquitto-clients
  [gcc]=gcc
  [npm]=npm
  [pkg-config]=pkg-config
  [fusermount3]=fuse3
  [glewlwyd]=glewlwyd
)
missing=()
for command in "${!package[@]}"; do
  PATH="$PATH:/usr/sbin" command -v "$command" >/dev/null || missing+=("${package[$command]}")
done
[ -e /usr/include/modbus/modbus.h ] || missing+=(libmodbus-dev)
[ -e /usr/include/fuse3/fuse_lowlevel.h ] || missing+=(libfuse3-dev)
# gcc only recommends the C library's headers.
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
# PostgreSQL keeps its programs off the path.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -eq 0 ] && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  echo "==> Installing system packages for the tests: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # The tests start their own servers; no service may come up by itself.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/tmp/headrace-apt.log 2>&1 ||
    echo "!!  Could not install them (see /tmp/headrace-apt.log); the tests that need them will skip"
else
  echo "!!  Tests that need these will skip: ${missing[*]}"
  echo "!!  On Debian or Ubuntu: sudo apt-get install --no-install-recommends ${missing[*]}"
fi
exit 0
