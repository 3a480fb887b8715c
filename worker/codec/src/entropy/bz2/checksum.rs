//! The checksum of bzip2: CRC-32, most significant bit first.

const POLYNOMIAL: u32 = 0x04c1_1db7;

/// For eight bytes in sequence the contribution of each.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc >> 31 == 1 {
                crc << 1 ^ POLYNOMIAL
            } else {
                crc << 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut level = 1;
    while level < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[level - 1][byte];
            tables[level][byte] = before << 8 ^ tables[0][(before >> 24) as usize];
            byte += 1;
        }
        level += 1;
    }
    tables
}

/// The checksum of a block's raw bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in chunks {
        let [a, b, c, d] = (crc ^ u32::from_be_bytes([a, b, c, d])).to_be_bytes();
        crc = TABLES[7][usize::from(a)]
            ^ TABLES[6][usize::from(b)]
            ^ TABLES[5][usize::from(c)]
            ^ TABLES[4][usize::from(d)]
            ^ TABLES[3][usize::from(e)]
            ^ TABLES[2][usize::from(f)]
            ^ TABLES[1][usize::from(g)]
            ^ TABLES[0][usize::from(h)];
    }
    for &byte in rest {
        crc = crc << 8 ^ TABLES[0][usize::from((crc >> 24) as u8 ^ byte)];
    }
    !crc
}

/// The checksum of a stream, from that of the blocks before and of the next one.
pub(super) fn combine(stream: u32, block: u32) -> u32 {
    stream.rotate_left(1) ^ block
}
