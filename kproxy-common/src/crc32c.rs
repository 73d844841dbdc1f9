//! The checksum of SCTP (RFC 9260 appendix A) after a change of the ports.
//!
//! CRC-32C is linear: the checksums of two packets differ by what the differing bits alone make of
//! it. So neither the payload nor its checksum has to be read again.

/// The polynomial of CRC-32C, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// One.
const ONE: u32 = 1 << 31;
/// Powers of two that a length is made of.
const BITS: usize = 16;

/// The product of two polynomials, modulo that of the CRC.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 32);
    while bit > 0 {
        bit -= 1;
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

/// What a word becomes by 1, 2, 4, … further bytes (a multiplication by x^8, x^16, x^32, …): for each
/// of these and each four bits of the word 16 entries. A table because the verifier would walk every
/// step of a multiplication, again and again.
static TABLE: [u32; BITS * 8 * 16] = {
    let mut table = [0; BITS * 8 * 16];
    let (mut power, mut i) = (ONE >> 8, 0);
    while i < BITS {
        let mut entry = 0;
        while entry < 8 * 16 {
            let word = (entry as u32 % 16) << (entry / 16 * 4);
            table[i * 8 * 16 + entry] = multiply(power, word);
            entry += 1;
        }
        power = multiply(power, power);
        i += 1;
    }
    table
};

/// By which bits the checksum of a packet of `len` bytes changes (below 65,536) when its first four
/// change by `delta`. Both as words in little-endian order, which is how the checksum is stored.
#[inline(always)]
pub fn change(mut delta: u32, len: u32) -> u32 {
    let mut i = 0;
    while i < BITS {
        if len >> i & 1 == 1 {
            let (mut product, mut four) = (0, 0);
            while four < 8 {
                let entry = i * 8 * 16 + four * 16 + (delta >> (four * 4) & 15) as usize;
                // The mask leaves no panic for the verifier to find.
                product ^= TABLE[entry & (TABLE.len() - 1)];
                four += 1;
            }
            delta = product;
        }
        i += 1;
    }
    delta
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum by its definition, bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn the_definition_gives_the_check_value() {
        // RFC 3720 appendix B.4, and the check value of CRC catalogues.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    proptest! {
        #[test]
        fn other_first_bytes_change_the_checksum_by_what_is_said(
            mut packet in prop::collection::vec(any::<u8>(), 4..3000),
            ports in any::<[u8; 4]>(),
        ) {
            let before = crc32c(&packet);
            let old = u32::from_le_bytes(packet[..4].try_into().unwrap());
            packet[..4].copy_from_slice(&ports);
            let delta = old ^ u32::from_le_bytes(ports);
            prop_assert_eq!(before ^ change(delta, packet.len() as u32), crc32c(&packet));
        }
    }
}
