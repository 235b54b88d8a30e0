//! Where a user's files are, by the XDG rules. Looks at the environment only through the function
//! it is given.

use std::path::PathBuf;

/// Where the user's settings are: `$XDG_CONFIG_HOME/dfs` or `~/.config/dfs`.
pub fn config_dir(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    under_home(env, "XDG_CONFIG_HOME", ".config")
}

/// Where interrupted transfers remember what they did: `$XDG_STATE_HOME/dfs` or
/// `~/.local/state/dfs`.
pub fn state_dir(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    under_home(env, "XDG_STATE_HOME", ".local/state")
}

/// Where a node's data is unless told: `$XDG_DATA_HOME/dfs` or `~/.local/share/dfs`.
pub fn data_dir(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    under_home(env, "XDG_DATA_HOME", ".local/share")
}

fn under_home(
    env: &dyn Fn(&str) -> Option<String>,
    variable: &str,
    below_home: &str,
) -> Option<PathBuf> {
    // The XDG rules: a relative path is invalid and counts as unset.
    let set = said(env, variable)
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let base = set.or_else(|| Some(PathBuf::from(said(env, "HOME")?).join(below_home)))?;
    Some(base.join("dfs"))
}

/// A variable's value; an empty one counts as not set.
pub fn said(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}
