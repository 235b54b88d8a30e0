//! Bytes on the wire and on the disk: postcard behind a version byte.
//!
//! A stored struct is never edited: a new variant is added to its enum, or the version byte of
//! its table is raised and the old form still read. Golden bytes under `testdata/golden/` hold
//! every stored type to this.
//!
//! Decoding takes any bytes: it returns an error, never panics, and never reserves more memory
//! than the input has bytes.

#[cfg(test)]
pub mod golden;

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

/// Reads a list of at most `MAX` items: `#[serde(deserialize_with = "codec::at_most::<_, _, N>")]`.
/// For lists whose items take much more memory than bytes: a frame of megabytes of two-byte items
/// would become hundreds of megabytes before anybody could count them. The bytes are those of any
/// list.
pub fn at_most<'de, D, T, const MAX: usize>(from: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    struct List<T, const MAX: usize>(std::marker::PhantomData<T>);

    impl<'de, T: serde::Deserialize<'de>, const MAX: usize> serde::de::Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut items: A,
        ) -> std::result::Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX {
                    return Err(serde::de::Error::custom("a list is too long"));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List::<T, MAX>(std::marker::PhantomData))
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
    fn a_list_with_a_bound_is_refused_behind_it_and_has_the_same_bytes() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Bounded(#[serde(deserialize_with = "at_most::<_, _, 3>")] Vec<u32>);
        for len in 0..6u32 {
            let plain: Vec<u32> = (0..len).collect();
            let bytes = encode(&Bounded(plain.clone()));
            assert_eq!(bytes, encode(&plain));
            assert_eq!(decode::<Bounded>(&bytes).is_ok(), len <= 3, "{len}");
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
