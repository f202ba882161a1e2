//! Hash slots of Redis Cluster, and a tag for each of them.

use std::sync::LazyLock;

/// How many slots a cluster has.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key (Redis Cluster specification, "Hash tags"): that of what stands between the first `{` and the next
/// `}`, unless that is nothing, else of the whole key.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|&b| b == b'{')? + 1;
        let length = key[open..].iter().position(|&b| b == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    // The remainder by 16384 fits.
    crc16(tag().unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM: polynomial 0x1021, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    const fn table() -> [u16; 256] {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = (byte as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    }
    const TABLE: [u16; 256] = table();
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// A tag that hashes to `slot`: the smallest number whose decimal digits do. Markers are kept under these names, so they
/// are as they are for good.
pub(super) fn tag_of(slot: u16) -> u32 {
    static TAGS: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let mut tags = vec![None; SLOTS];
        let mut missing = SLOTS;
        let mut digits = String::new();
        for number in 0_u32.. {
            digits.clear();
            // Writing to a String cannot fail.
            let _infallible = std::fmt::Write::write_fmt(&mut digits, format_args!("{number}"));
            let tag = &mut tags[usize::from(slot_of(digits.as_bytes()))];
            if tag.is_none() {
                *tag = Some(number);
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        tags.into_iter().flatten().collect()
    });
    TAGS[usize::from(slot) % SLOTS]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // CLUSTER KEYSLOT of a real server.
        for (key, slot) in [
            ("foo", 12_182),
            ("{user1000}.following", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    }

    #[test]
    fn every_slot_has_a_tag_that_hashes_to_it() {
        for slot in 0..SLOTS as u16 {
            let tag = tag_of(slot);
            assert_eq!(slot_of(format!("numgen:generation:{{{tag}}}").as_bytes()), slot);
        }
        // Names of stored keys: these may never change.
        assert_eq!((tag_of(0), tag_of(1), tag_of(16_383)), (3_560, 22_179, 39_296));
    }
}
