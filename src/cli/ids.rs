//! Numbers as people type them: ids in decimal or 0x-hex, sizes with a unit.

/// Reads an id: decimal, hexadecimal after `0x`, or `hash:TEXT`.
pub(crate) fn parse_id(text: &str) -> Result<u64, String> {
    if let Some(text) = text.strip_prefix("hash:") {
        return Ok(hash(text.as_bytes()));
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => parse_digits(digits, 16),
        None => parse_digits(text, 10),
    }
    .ok_or_else(|| {
        let or_hex = match parse_digits(text, 16) {
            Some(_) => format!(". Did you mean 0x{text}?"),
            None => String::new(),
        };
        format!("`{text}` is not an id; use 0 to {}, or hexadecimal after 0x{or_hex}", u64::MAX)
    })
}

/// The id for a text: its FNV-1a hash of 64 bits. Of a million texts two have one hash once in 37 million times.
pub(crate) fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Reads digits of a known radix. A sign is not a digit.
pub(crate) fn parse_digits(digits: &str, radix: u32) -> Option<u64> {
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Reads a size in bytes: a number, or a number with K, M, G or T, each 1024 times the one before.
/// `KiB` and `KB` mean the same as `K`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is not a size; use a number of bytes, or one with a unit, such as 64K, 10M, 2G, 1T")
    };
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_uppercase();
    let unit = unit.strip_suffix('B').unwrap_or(&unit);
    let shift = match unit.strip_suffix('I').unwrap_or(unit) {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is beyond 2^64 bytes"))
}

/// Reads a record size, which must fit in memory.
pub(crate) fn parse_record_size(text: &str) -> Result<usize, String> {
    usize::try_from(parse_size(text)?).map_err(|_| format!("`{text}` does not fit in memory"))
}

/// A size for people: `4.2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_decimal_or_hexadecimal_and_nothing_else() {
        assert_eq!(parse_id("0"), Ok(0));
        assert_eq!(parse_id("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_id("0x1F980"), Ok(0x1F980));
        assert_eq!(parse_id("0Xff"), Ok(255));
        // The published values of FNV-1a.
        assert_eq!(parse_id("hash:"), Ok(0xcbf2_9ce4_8422_2325));
        assert_eq!(parse_id("hash:foobar"), Ok(0x8594_4171_f739_67e8));
        for wrong in ["", "0x", "+1", "-1", "0x+1", "1F", "18446744073709551616", " 1", "1_000"] {
            assert!(parse_id(wrong).is_err(), "{wrong:?} was taken for an id");
        }
    }

    #[test]
    fn a_size_has_an_optional_unit_of_1024() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("640"), Ok(640));
        assert_eq!(parse_size("64K"), Ok(64 << 10));
        assert_eq!(parse_size("64kb"), Ok(64 << 10));
        assert_eq!(parse_size("10 MiB"), Ok(10 << 20));
        assert_eq!(parse_size("16777215T"), Ok(16_777_215 << 40));
        for wrong in ["", "K", "1X", "-1", "1.5G", "16777216T", "1KK"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?} was taken for a size");
        }
    }

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
    }
}
