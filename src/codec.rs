//! Bytes on the wire and on the disk: postcard behind a version byte.
//!
//! A stored struct is never edited: a new variant is added to its enum, or the version byte of
//! its table is raised and the old form still read. Golden bytes under `testdata/golden/` hold
//! every stored type to this.
//!
//! Decoding takes any bytes: it returns an error, never panics, and never reserves more memory
//! than the input has bytes.

use crate::error::{Code, Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Version of everything written by this build.
pub const FORMAT: u8 = 1;

/// Encodes a value behind the version byte.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let out = vec![FORMAT];
    postcard::to_extend(value, out).expect("encoding to memory of our own types cannot fail")
}

/// Decodes what [`encode`] wrote; trailing bytes are an error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let (&format, body) = bytes.split_first().ok_or_else(|| malformed("empty"))?;
    if format != FORMAT {
        return Err(
            malformed(&format!("format {format}, this build reads {FORMAT}"))
                .hint("use a build that knows this format"),
        );
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(|e| malformed(&e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(&format!("{} bytes too many", rest.len())));
    }
    Ok(value)
}

fn malformed(why: &str) -> Error {
    Error::new(Code::Corrupt, format!("malformed bytes ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decodes_what_it_encoded(value: (u64, String, Vec<Option<u32>>)) {
            prop_assert_eq!(decode::<(u64, String, Vec<Option<u32>>)>(&encode(&value)).unwrap(), value);
        }

        #[test]
        fn takes_any_bytes(bytes: Vec<u8>) {
            let _ = decode::<(u64, String, Vec<Option<u32>>)>(&bytes);
        }
    }

    #[test]
    fn refuses_another_format_and_trailing_bytes() {
        let mut bytes = encode(&7u32);
        bytes.push(0);
        assert!(decode::<u32>(&bytes).is_err());
        bytes.pop();
        bytes[0] = 9;
        assert!(
            decode::<u32>(&bytes)
                .unwrap_err()
                .message
                .contains("format 9")
        );
    }
}
