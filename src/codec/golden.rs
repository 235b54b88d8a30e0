//! Golden bytes of stored layouts: `testdata/golden/NAME.hex`. `DFS_BLESS=1` writes them anew; do
//! that only for a layout that was never released. Called by tests.

use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::path::PathBuf;

/// The value still has its golden bytes, and they are still read as the value.
pub fn value<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let encoded = super::encode(value);
    bytes(name, &encoded);
    assert_eq!(
        &super::decode::<T>(&encoded).expect("it was just encoded"),
        value
    );
}

/// The bytes are the golden ones.
pub fn bytes(name: &str, bytes: &[u8]) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/golden")
        .join(format!("{name}.hex"));
    let text = hexadecimal(bytes);
    if std::env::var_os("DFS_BLESS").is_some() {
        std::fs::write(&file, &text).expect("the directory of golden files is there");
    }
    let expected = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error} (DFS_BLESS=1 writes it)", file.display()));
    assert_eq!(text, expected, "the stored layout of {name} changed");
}

fn hexadecimal(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}
