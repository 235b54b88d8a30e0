#!/usr/bin/env bash
# What scripts that run dfs begin with: no setting of the user's acts on them, and nothing that
# they do acts on the user's cluster. Sourced by them.

apart() { # DIRECTORY: the home of all nodes and clients from here on, without a setting
    local name
    for name in $(compgen -e DFS_); do unset "$name"; done
    unset XDG_CONFIG_HOME XDG_STATE_HOME XDG_DATA_HOME
    export HOME=$1
    # Else the machine's settings would be read, /etc/dfs/dfs.toml.
    export DFS_CONFIG=$1/settings.toml
    : >"$DFS_CONFIG"
}
