//! Where an id belongs: its region, its index line, its tag.
//!
//! The hash is the SplitMix64 finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number
//! generators", OOPSLA 2014; constants by David Stafford, variant 13) of `id ^ key`, where the key is
//! drawn at creation. It is part of the format.

/// The hash of `id` in a store whose hash key is `key`.
#[inline]
pub(crate) const fn hash(id: u64, key: u64) -> u64 {
    let mut h = id ^ key;
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// The region of a hash: its high half, scaled to the number of regions (Lemire, "Fast random
/// integer generation in an interval", 2019).
#[inline]
pub(crate) const fn region(hash: u64, regions: u32) -> u32 {
    (((hash >> 32) * regions as u64) >> 32) as u32
}
