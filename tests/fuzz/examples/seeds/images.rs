//! The smallest disk images.

use std::io::{self, Write as _};

use super::script::Seed;

/// Inputs for the readers of disk images.
///
/// # Errors
/// When something cannot be packed.
pub fn seeds() -> io::Result<Vec<Seed>> {
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(&[0x5a; 512])?;
    let zstd = zstd::bulk::compress(&[0x5a; 512], 3)?;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&[0x5a; 4096])?;
    Ok(vec![
        ("image_qcow2", "deflate", qcow2(0, &deflate.finish()?)),
        ("image_qcow2", "zstd", qcow2(8, &zstd)),
        ("image_qcow2", "subclusters", subclusters()),
        ("image_vmdk", "sparse", vmdk(1, 1, &[0x5a; 4096])),
        (
            "image_vmdk",
            "packed",
            vmdk(3, 0x3_0001, &grain(&zlib.finish()?)),
        ),
        (
            "image_vmdk",
            "descriptor",
            descriptor("twoGbMaxExtentFlat").into_bytes(),
        ),
        ("image_vhd", "dynamic", vhd(3)),
        ("image_vhd", "fixed", vhd(2)),
        ("image_vhdx", "dynamic", vhdx()),
    ])
}

/// A file in which things are put at places.
struct File(Vec<u8>);

impl File {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let length = self.0.len().max(at + bytes.len());
        self.0.resize(length, 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn qcow2_header(features: u64, bits: u32, size: u64) -> File {
    let mut file = File(vec![0; 512]);
    file.put(0, b"QFI\xfb\0\0\0\x03");
    file.put(20, &bits.to_be_bytes());
    file.put(24, &size.to_be_bytes());
    file.put(36, &2_u32.to_be_bytes());
    file.put(40, &(1_u64 << bits).to_be_bytes());
    file.put(72, &features.to_be_bytes());
    file.put(96, &4_u32.to_be_bytes());
    file.put(100, &112_u32.to_be_bytes());
    file.put(104, &[u8::from(features & 8 != 0)]);
    file
}

/// Clusters of 512 bytes: plain, zero, packed, absent.
fn qcow2(features: u64, packed: &[u8]) -> Vec<u8> {
    let mut file = qcow2_header(features, 9, 64 * 512 + 1024);
    file.put(512, &(1 << 63 | 1024_u64).to_be_bytes());
    file.put(1024, &(1 << 63 | 1536_u64).to_be_bytes());
    file.put(1032, &1_u64.to_be_bytes());
    file.put(1040, &(1 << 62 | 2048_u64).to_be_bytes());
    file.put(1536, &[0xa5; 512]);
    file.put(2048, packed);
    file.0
}

/// One cluster of 16 KiB, of which some parts are there and some zero.
fn subclusters() -> Vec<u8> {
    let mut file = qcow2_header(16, 14, 20_480);
    file.put(0x4000, &(1 << 63 | 0x8000_u64).to_be_bytes());
    file.put(0x8000, &(1 << 63 | 0xc000_u64).to_be_bytes());
    file.put(0x8008, &0x0000_ff00_00ff_000f_u64.to_be_bytes());
    file.put(0xc000, &[0xa5; 0x4000]);
    file.0
}

fn descriptor(kind: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"{kind}\"\nRW 16 SPARSE \"a.vmdk\"\n"
    )
}

/// A packed grain with its marker.
fn grain(packed: &[u8]) -> Vec<u8> {
    let length = packed.len() as u32;
    [&[0; 8], &length.to_le_bytes()[..], packed].concat()
}

/// Two grains of 4 KiB, of which the first is there.
fn vmdk(version: u32, flags: u32, content: &[u8]) -> Vec<u8> {
    let kind = if version == 3 {
        "streamOptimized"
    } else {
        "monolithicSparse"
    };
    let mut file = File(vec![0; 512]);
    file.put(0, b"KDMV");
    file.put(4, &version.to_le_bytes());
    file.put(8, &flags.to_le_bytes());
    for (at, value) in [(12, 16_u64), (20, 8), (28, 1), (36, 1), (56, 2), (64, 8)] {
        file.put(at, &value.to_le_bytes());
    }
    file.put(44, &512_u32.to_le_bytes());
    file.put(73, b"\n \r\n");
    file.put(77, &[u8::from(version == 3), 0]);
    file.put(512, descriptor(kind).as_bytes());
    file.put(1024, &3_u32.to_le_bytes());
    file.put(1536, &8_u32.to_le_bytes());
    file.put(4096, content);
    file.put(4096 + content.len().next_multiple_of(512), &[]);
    file.0
}

fn vhd_sum(bytes: &mut [u8], at: usize) {
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// Two blocks of 4 KiB, of which the first is there.
fn vhd(kind: u32) -> Vec<u8> {
    let mut footer = File(vec![0; 512]);
    footer.put(0, b"conectix");
    footer.put(12, &[0, 1]);
    footer.put(16, &512_u64.to_be_bytes());
    footer.put(48, &8192_u64.to_be_bytes());
    footer.put(60, &kind.to_be_bytes());
    vhd_sum(&mut footer.0, 64);
    if kind == 2 {
        return [vec![0x5a; 8192], footer.0].concat();
    }
    let mut header = File(vec![0; 1024]);
    header.put(0, b"cxsparse");
    header.put(16, &1536_u64.to_be_bytes());
    header.put(28, &2_u32.to_be_bytes());
    header.put(32, &4096_u32.to_be_bytes());
    vhd_sum(&mut header.0, 36);
    let mut file = File(footer.0.clone());
    file.put(512, &header.0);
    file.put(1536, &[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]);
    file.put(2048, &[0xf0]);
    file.put(2560, &[0x5a; 4096]);
    file.put(6656, &footer.0);
    file.0
}

/// The parts of a VHDX that its target puts into their places.
fn vhdx() -> Vec<u8> {
    let id = |text: &str| -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).unwrap_or(0))
            .collect()
    };
    let mut file = File(vec![0; 544]);
    file.put(0, b"head");
    file.put(66, &[1]);
    // Regions: blocks and metadata.
    file.put(80, b"regi");
    file.put(88, &[2]);
    file.put(96, &id("6677c22d23f600429d64115e9bfd4a08"));
    file.put(112, &(3_u64 << 20).to_le_bytes());
    file.put(120, &(1_u32 << 20).to_le_bytes());
    file.put(128, &id("06a27c8b90479a4bb8fe575f050f886e"));
    file.put(144, &(2_u64 << 20).to_le_bytes());
    file.put(152, &(1_u32 << 20).to_le_bytes());
    file.put(160, b"metadata\0\0\x03");
    let items = [
        ("3767a1ca36fa434db3b633f0aa44e76b", 0, 8),
        ("2442a52f1bcd7648b2115dbed83bf4b8", 8, 8),
        ("1dbf41816fa90947ba47f233a8faab5f", 16, 4),
    ];
    for (number, (guid, offset, length)) in items.into_iter().enumerate() {
        let at = 192 + 32 * number;
        file.put(at, &id(guid));
        file.put(at + 16, &(0x1_0000_u32 + offset).to_le_bytes());
        file.put(at + 20, &u32::to_le_bytes(length));
    }
    // A block has 1 MiB, the disk two and a half, a sector 512 bytes.
    file.put(416, &(1_u64 << 20).to_le_bytes());
    file.put(424, &(5_u64 << 19).to_le_bytes());
    file.put(432, &512_u32.to_le_bytes());
    file.put(480, &((3_u64 << 20) | 6).to_le_bytes());
    file.0
}
