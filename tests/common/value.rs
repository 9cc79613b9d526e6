//! Values that say what they are: id, writer, counter, filler that follows from these, checksum.
//! A mix of two of them, or one under another's id, is seen.

/// Bytes of the shortest value.
pub(crate) const LEAST: usize = 32;

/// The value of `id` that `writer` wrote as its `counter`-th.
pub(crate) fn value(id: u64, writer: u64, counter: u64, len: usize) -> Vec<u8> {
    assert!(len >= LEAST);
    let mut bytes = Vec::with_capacity(len);
    for word in [id, writer, counter] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    let mut state = id ^ writer.rotate_left(21) ^ counter.rotate_left(42);
    while bytes.len() < len - 4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Who wrote `bytes` as `id`, and its counter; or what is wrong with them.
pub(crate) fn parse(id: u64, bytes: &[u8]) -> Result<(u64, u64), String> {
    if bytes.len() < LEAST {
        return Err(format!("id {id}: {} bytes", bytes.len()));
    }
    let (body, sum) = bytes.split_at(bytes.len() - 4);
    let word = |i: usize| u64::from_le_bytes(body[i * 8..i * 8 + 8].try_into().unwrap());
    let (own, writer, counter) = (word(0), word(1), word(2));
    let len = u32::from_le_bytes(body[24..28].try_into().unwrap());
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err(format!("id {id}: torn: says id {own}, writer {writer}, counter {counter}, {len} bytes"));
    }
    if own != id || len as usize != bytes.len() {
        return Err(format!("id {id}: is whole, but of id {own} and {len} bytes where {} came", bytes.len()));
    }
    Ok((writer, counter))
}
