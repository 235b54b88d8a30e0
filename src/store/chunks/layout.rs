//! Pure: the bytes of packs and chunk files (drawn in `mod.rs`): headers, tombstones, footers.
//! Decoders take any bytes and answer `None` for what is not theirs.

use crate::types::ChunkHash;

/// Records and the data area begin at multiples of this.
pub const ALIGN: u64 = 64;
/// Bytes of a pack's header, a record's header and a chunk file's footer.
pub const HEADER_BYTES: u64 = 64;
/// Bytes of one tombstone.
pub const TOMBSTONE_BYTES: u64 = 8;
/// Format of packs and chunk files written by this build.
pub const FORMAT: u32 = 1;

const PACK_MAGIC: [u8; 8] = *b"\x89dfspak\n";
const RECORD_MAGIC: [u8; 8] = *b"\x89dfsrec\n";
const FOOTER_MAGIC: [u8; 8] = *b"\x89dfschk\n";
/// The unit of a tombstone for the whole pack.
const RETIRED: u32 = u32::MAX;

type Header = [u8; HEADER_BYTES as usize];

/// Header of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    pub number: u64,
    /// Tombstones there is room for; the records begin behind them.
    pub slots: u32,
}

/// Where a pack with so many tombstone slots begins to hold records.
pub fn data_start(slots: u32) -> u64 {
    align(HEADER_BYTES + u64::from(slots) * TOMBSTONE_BYTES)
}

impl PackHeader {
    pub fn encode(&self) -> Header {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(&PACK_MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.slots.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        seal(out)
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = opened(bytes, &PACK_MAGIC)?;
        (u32_at(header, 8) == FORMAT).then(|| PackHeader {
            slots: u32_at(header, 12),
            number: u64_at(header, 16),
        })
    }
}

/// Header of one record of a pack. It names its own place, so that a pack stored as somebody's
/// content is not taken for records of the pack it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub pack: u64,
    /// Of the header, in the pack; a multiple of [`ALIGN`].
    pub offset: u64,
    /// Bytes of data behind the header, without the padding.
    pub len: u32,
    pub hash: ChunkHash,
}

/// Bytes a record of `len` bytes takes in a pack.
pub fn record_bytes(len: u32) -> u64 {
    HEADER_BYTES + align(u64::from(len))
}

impl RecordHeader {
    pub fn encode(&self) -> Header {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(&RECORD_MAGIC);
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..16].copy_from_slice(&unit(self.offset).to_le_bytes());
        out[16..24].copy_from_slice(&self.pack.to_le_bytes());
        out[24..56].copy_from_slice(&self.hash.0);
        seal(out)
    }

    /// `None` also for a record of another place.
    pub fn decode(bytes: &[u8], pack: u64, offset: u64) -> Option<Self> {
        let header = opened(bytes, &RECORD_MAGIC)?;
        let here = u64_at(header, 16) == pack && u64::from(u32_at(header, 12)) * ALIGN == offset;
        here.then(|| RecordHeader {
            pack,
            offset,
            len: u32_at(header, 8),
            hash: hash_at(header, 24),
        })
    }
}

/// What a tombstone slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstone {
    Free,
    /// The record at this offset is dead.
    Record(u64),
    /// All records are dead or were copied to later packs: the file may go.
    Retired,
    /// Torn or damaged: says nothing, but the slot is used.
    Damaged,
}

impl Tombstone {
    /// The bytes of a slot. `Free` and `Damaged` are never written; they encode as free.
    pub fn encode(self, pack: u64) -> [u8; TOMBSTONE_BYTES as usize] {
        let unit = match self {
            Tombstone::Record(offset) => unit(offset),
            Tombstone::Retired => RETIRED,
            Tombstone::Free | Tombstone::Damaged => return [0; TOMBSTONE_BYTES as usize],
        };
        let mut out = [0; TOMBSTONE_BYTES as usize];
        out[..4].copy_from_slice(&unit.to_le_bytes());
        out[4..].copy_from_slice(&tombstone_crc(pack, unit).to_le_bytes());
        out
    }

    pub fn decode(slot: &[u8], pack: u64) -> Self {
        if slot.len() != TOMBSTONE_BYTES as usize {
            return Tombstone::Damaged;
        }
        let (unit, crc) = (u32_at(slot, 0), u32_at(slot, 4));
        if unit == 0 && crc == 0 {
            Tombstone::Free
        } else if crc != tombstone_crc(pack, unit) {
            Tombstone::Damaged
        } else if unit == RETIRED {
            Tombstone::Retired
        } else {
            Tombstone::Record(u64::from(unit) * ALIGN)
        }
    }
}

/// The last bytes of a chunk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Bytes of the chunk, at the file's start.
    pub len: u64,
    /// Bytes of an outboard group.
    pub group_bytes: u32,
    pub hash: ChunkHash,
}

impl Footer {
    pub fn encode(&self) -> Header {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(&FOOTER_MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.group_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.len.to_le_bytes());
        out[24..56].copy_from_slice(&self.hash.0);
        seal(out)
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = opened(bytes, &FOOTER_MAGIC)?;
        let group_bytes = u32_at(header, 12);
        let known =
            u32_at(header, 8) == FORMAT && group_bytes.is_power_of_two() && group_bytes >= 1_024;
        known.then(|| Footer {
            len: u64_at(header, 16),
            group_bytes,
            hash: hash_at(header, 24),
        })
    }
}

/// Rounds up to [`ALIGN`].
pub fn align(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGN).saturating_mul(ALIGN)
}

fn unit(offset: u64) -> u32 {
    u32::try_from(offset / ALIGN).expect("packs are bounded far below 2^32 units")
}

fn tombstone_crc(pack: u64, unit: u32) -> u32 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&pack.to_le_bytes());
    bytes[8..].copy_from_slice(&unit.to_le_bytes());
    crc32c::crc32c(&bytes)
}

fn seal(mut header: Header) -> Header {
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn opened<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Option<&'a [u8]> {
    let header = bytes.get(..HEADER_BYTES as usize)?;
    let fits = header.starts_with(magic) && u32_at(header, 60) == crc32c::crc32c(&header[..60]);
    fits.then_some(header)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn hash_at(bytes: &[u8], at: usize) -> ChunkHash {
    ChunkHash(bytes[at..at + 32].try_into().expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORD: RecordHeader = RecordHeader {
        pack: 3,
        offset: 4_096,
        len: 100,
        hash: ChunkHash([7; 32]),
    };

    #[test]
    fn every_flipped_bit_is_noticed() {
        let footer = Footer {
            len: 9,
            group_bytes: 65_536,
            hash: ChunkHash([1; 32]),
        };
        let pack = PackHeader {
            number: 3,
            slots: 16,
        };
        assert_eq!(Footer::decode(&footer.encode()), Some(footer));
        assert_eq!(PackHeader::decode(&pack.encode()), Some(pack));
        assert_eq!(
            RecordHeader::decode(&RECORD.encode(), 3, 4_096),
            Some(RECORD)
        );
        let flip = |mut bytes: Header, bit: usize| {
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..HEADER_BYTES as usize * 8 {
            assert_eq!(Footer::decode(&flip(footer.encode(), bit)), None);
            assert_eq!(PackHeader::decode(&flip(pack.encode(), bit)), None);
            assert_eq!(
                RecordHeader::decode(&flip(RECORD.encode(), bit), 3, 4_096),
                None
            );
        }
    }

    #[test]
    fn a_record_of_another_place_is_not_taken() {
        assert_eq!(RecordHeader::decode(&RECORD.encode(), 4, 4_096), None);
        assert_eq!(RecordHeader::decode(&RECORD.encode(), 3, 4_160), None);
    }

    #[test]
    fn tombstones_go_both_ways_and_belong_to_their_pack() {
        for stone in [Tombstone::Record(128), Tombstone::Retired] {
            let bytes = stone.encode(5);
            assert_eq!(Tombstone::decode(&bytes, 5), stone);
            assert_eq!(Tombstone::decode(&bytes, 6), Tombstone::Damaged);
        }
        assert_eq!(Tombstone::decode(&[0; 8], 5), Tombstone::Free);
    }

    proptest! {
        #[test]
        fn decoders_take_any_bytes(bytes: Vec<u8>) {
            let _ = Footer::decode(&bytes);
            let _ = PackHeader::decode(&bytes);
            let _ = RecordHeader::decode(&bytes, 0, 0);
            let _ = Tombstone::decode(&bytes, 0);
        }
    }
}
