//! Kernels, saved states, messages, images.

use std::io::{self, Write as _};

use lodge_vmm_proto::{
    Answer, Boot, CdromConfig, CpuConfig, DiskBus, DiskConfig, DiskLimits, FdIndex, GuestConfig,
    KeyEvent, Launch, NicConfig, NicModel, OnReset, PROTOCOL_VERSION, Reply, Request, RequestBody,
    ServerMessage, WatchdogAction,
};
use uuid::Uuid;

use super::script::Seed;

/// The state of a machine, as an earlier release has saved it.
const RECORDED: &[u8] = include_bytes!("../../../../src/vmm/tests/recorded/0.1.0.json");

/// Inputs for everything that is a file or a message.
///
/// # Errors
/// When something cannot be packed.
pub fn seeds() -> io::Result<Vec<Seed>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&elf())?;
    let zstd = zstd::bulk::compress(&elf(), 9)?;
    let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frame.write_all(&elf())?;
    let mut legacy = vec![0x02, 0x21, 0x4c, 0x18];
    let block = lz4_flex::block::compress(&elf());
    legacy.extend((block.len() as u32).to_le_bytes());
    legacy.extend(block);
    let with_pages = |kernel: &[u8]| [&[3], kernel].concat();
    let mut seeds = vec![
        ("kernel", "elf", with_pages(&elf())),
        ("kernel", "gzip", with_pages(&gzip.finish()?)),
        ("kernel", "zstd", with_pages(&zstd)),
        (
            "kernel",
            "lz4",
            with_pages(&frame.finish().map_err(io::Error::other)?),
        ),
        ("kernel", "lz4_legacy", with_pages(&legacy)),
        ("kernel", "bzimage", with_pages(&bzimage(&[0xcc; 512]))),
        ("kernel", "bzimage_lz4", with_pages(&bzimage(&legacy))),
        ("saved_file", "recorded", RECORDED.to_vec()),
        ("image_format", "qcow2", image(0, b"QFI\xfb\0\0\0\x03")),
        ("image_format", "vmdk", image(0, b"KDMV\x01\0\0\0")),
        ("image_format", "vhdx", image(0, b"vhdxfile")),
        ("image_format", "iso", image(0x8000, b"\x01CD001\x01")),
        (
            "image_format",
            "partitions",
            image(0x1fe, b"\x55\xaaEFI PART"),
        ),
        ("image_format", "ext4", image(0x438, b"\x53\xef")),
    ];
    for (name, message) in messages()? {
        seeds.push(("monitor_messages", name, message));
    }
    Ok(seeds)
}

/// An ELF kernel of two segments and a PVH note.
fn elf() -> Vec<u8> {
    let mut file = vec![0; 0x600];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &0x10_0000_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &3_u16.to_le_bytes());
    let segments = [
        (1_u32, 0x200_u64, 0x10_0000_u64, 0x100_u64, 0x2000_u64),
        (1, 0x300, 0x10_3000, 0x200, 0x200),
        (4, 0x500, 0, 20, 20),
    ];
    for (index, (kind, offset, address, in_file, in_memory)) in segments.into_iter().enumerate() {
        let at = 64 + 56 * index;
        put(at, &kind.to_le_bytes());
        for (field, value) in [
            (8, offset),
            (16, address),
            (24, address),
            (32, in_file),
            (40, in_memory),
        ] {
            put(at + field, &value.to_le_bytes());
        }
    }
    put(0x200, &[0xcc; 0x300]);
    // XEN_ELFNOTE_PHYS32_ENTRY
    put(0x500, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    put(0x50c, b"Xen\0\0\0\x10\0");
    file
}

/// A bzImage with this payload.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let code = (0x400 + payload.len()).next_multiple_of(16);
    let mut file = vec![0; 1024 + code];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &((code / 16) as u32).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x248, &0x400_u32.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x258, &0x10_0000_u64.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    put(1024 + 0x400, payload);
    file
}

fn image(at: usize, magic: &[u8]) -> Vec<u8> {
    let mut image = vec![0; at];
    image.extend(magic);
    image.resize(at + magic.len() + 600, 0);
    image
}

/// Messages that carry something.
///
/// # Errors
/// Never: messages are plain data.
fn messages() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let boot = Boot::Direct {
        kernel: FdIndex(3),
        initrd: Some(FdIndex(3)),
        cmdline: "quiet".to_owned(),
    };
    let disk = |bus| DiskConfig {
        file: FdIndex(3),
        bus,
        read_only: false,
        serial: "a".to_owned(),
        limits: DiskLimits::default(),
        on_error: Default::default(),
    };
    let launch = Launch {
        version: PROTOCOL_VERSION,
        guest: GuestConfig {
            id: Uuid::from_u128(7),
            name: "demo".to_owned(),
            vcpus: 2,
            cpu: CpuConfig::default(),
            memory: 256 << 20,
            boot,
            disks: [DiskBus::Virtio, DiskBus::Sata, DiskBus::Nvme]
                .map(disk)
                .to_vec(),
            cdroms: vec![CdromConfig { disc: None }],
            nics: vec![NicConfig {
                link_up: true,
                model: NicModel::E1000e,
                tap: FdIndex(3),
                vhost: None,
                further_pairs: Vec::new(),
                mac: [0x52, 0x54, 0, 1, 2, 3],
                mtu: 1500,
            }],
            vsock: None,
            on_reset: OnReset::Stop,
            watchdog: Some(WatchdogAction::Pause),
        },
        kvm: FdIndex(0),
        control: FdIndex(1),
        exit_record: FdIndex(2),
        uid_gid: Some((1, 1)),
        restore: None,
        jail: true,
    };
    let keys = vec![KeyEvent {
        key: 0x61,
        pressed: true,
    }];
    let request = |body| serde_json::to_vec(&Request { id: 1, body });
    let reply = ServerMessage::Reply(Reply {
        id: 1,
        answer: Answer::Done,
    });
    Ok(vec![
        ("launch", serde_json::to_vec(&launch)?),
        ("status", request(RequestBody::Status)?),
        ("keys", request(RequestBody::Keys { keys })?),
        (
            "disc",
            request(RequestBody::ChangeDisc {
                drive: 0,
                force: true,
            })?,
        ),
        ("reply", serde_json::to_vec(&reply)?),
    ])
}
