#!/usr/bin/env bash
# Makes dist/dfs-VERSION-x86_64-linux.tar.gz: the static binary, README, systemd unit,
# completions and man pages.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

target=x86_64-unknown-linux-gnu
version=$(cargo metadata --locked --no-deps --format-version 1 |
    grep -o '"name":"dfs","version":"[^"]*"' | head -n 1 | cut -d'"' -f8)
name="dfs-$version-x86_64-linux"

# The target must be named, or the flag would reach build scripts and proc-macros too.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile dist --target "$target"
binary=${CARGO_TARGET_DIR:-target}/$target/dist/dfs
if readelf -d "$binary" 2>/dev/null | grep -q NEEDED; then
    echo "release: $binary needs shared libraries" >&2
    exit 1
fi

rm -rf "dist/$name"
mkdir -p "dist/$name/completions" "dist/$name/man"
cp "$binary" README.md LICENSE packaging/dfs.service "dist/$name/"
for shell in bash zsh fish; do
    "$binary" completions "$shell" >"dist/$name/completions/dfs.$shell"
done
"$binary" man "dist/$name/man"
tar -C dist -czf "dist/$name.tar.gz" "$name"
ldd "$binary" || true
ls -l "dist/$name.tar.gz"
