#!/usr/bin/env bash
# What the build and the tests need on Debian, installed where it is missing. Sourced or run by
# the other scripts; says what is missing where it may not install.
set -euo pipefail

need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $2 (for $1)"
        if [ -z "${dfs_apt_updated:-}" ]; then apt-get update -qq; dfs_apt_updated=1; fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
    else
        echo "setup: $1 is missing; install the package $2" >&2
        exit 1
    fi
}

if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
command -v cargo >/dev/null || {
    echo "setup: cargo is missing; install Rust 1.95 or newer (https://rustup.rs)" >&2
    exit 1
}
need cc gcc
need diff diffutils
need tar tar
