//! Checksums of metadata records: XXH3-64 over the key (without its slot) and the value, so that
//! a value that turns up under another key is noticed too. Eight bytes, little-endian, behind
//! the value. The same hash is what directory sums add up (`shard::sum`).

use crate::error::{Code, Error, Result};
use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

/// Bytes a checksum adds to a value.
pub const CHECKSUM_BYTES: usize = 8;

/// Hash of a record. The key's length goes in first, so that key and value cannot trade bytes.
pub fn record_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u32).to_le_bytes());
    hash.update(key);
    hash.update(value);
    hash.digest()
}

/// The stored form of a value.
pub fn seal(key: &[u8], value: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(value.len() + CHECKSUM_BYTES);
    out.extend_from_slice(value);
    out.extend_from_slice(&record_hash(key, value).to_le_bytes());
    out.freeze()
}

/// The value of a stored form, checked.
///
/// # Errors
/// `corrupt`, with the key, when the checksum does not fit.
pub fn open<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8]> {
    let damaged = || {
        let shown: String = key.iter().take(64).map(|b| format!("{b:02x}")).collect();
        Error::new(
            Code::Corrupt,
            format!("metadata record {shown} is damaged (checksum)"),
        )
    };
    let cut = stored
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .ok_or_else(damaged)?;
    let (value, sum) = stored.split_at(cut);
    if sum != record_hash(key, value).to_le_bytes() {
        return Err(damaged());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_every_flipped_bit_and_another_key() {
        let stored = seal(b"key", b"value");
        assert_eq!(open(b"key", &stored).unwrap(), b"value");
        assert!(open(b"kez", &stored).is_err());
        assert!(open(b"key", b"short").is_err());
        for bit in 0..stored.len() * 8 {
            let mut bytes = stored.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"key", &bytes).is_err());
        }
    }
}
