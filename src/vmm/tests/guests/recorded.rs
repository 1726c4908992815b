//! What earlier releases have saved is still restored.
//!
//! `tests/recorded/` has the state of a machine with every device, one file for each schema that was released, as the body of a state file.
//! They are never changed. A release that changes a schema adds one: `LODGE_RECORD=1 cargo test -p lodge-vmm --test recorded`
//! writes that of the version in `Cargo.toml`.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::support::saving::{HEADER, state_file};
use crate::support::{Guest, Options, kvm_missing, rom};
use lodge_vmm_proto::{Answer, DiskBus, RequestBody, RunState};
use serde_json::Value;

const MEMORY: u64 = 64 << 20;
const VARIABLES: u64 = 64 << 10;

// Says `r`, and stands still.
crate::guest!(
    stands,
    // In real mode.
    ".code16",
    "mov dx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "2: hlt",
    "jmp 2b",
);

fn sized(length: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    file
}

/// Every device there is.
fn everything() -> Options {
    let variables = sized(VARIABLES);
    variables.write_all_at(&[0xff; 4096], 0).unwrap();
    Options {
        disks: vec![(DiskBus::Virtio, sized(1 << 20))],
        cdroms: vec![Some(sized(1 << 20)), None],
        memory: MEMORY,
        ..Options::firmware(rom(stands()), Some(variables))
    }
}

/// The state and memory of a guest of today.
fn save() -> (Vec<u8>, File) {
    let mut guest = Guest::start(everything());
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let state = tempfile::tempfile().unwrap();
    let answer = guest.ask_with(RequestBody::SaveState, &[state.as_fd()]);
    assert_eq!(answer, Answer::Done);
    let memory = sized(MEMORY);
    let body = RequestBody::SaveMemory {
        offset: 0,
        length: MEMORY,
    };
    let answer = guest.ask_with(body, &[memory.as_fd()]);
    assert!(matches!(answer, Answer::Saved { .. }), "{answer:?}");
    guest.kill();
    let mut bytes = vec![0; usize::try_from(state.metadata().unwrap().len()).unwrap()];
    state.read_exact_at(&mut bytes, 0).unwrap();
    (bytes, memory)
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

#[test]
fn every_recorded_state_is_still_restored() {
    if kvm_missing() {
        return;
    }
    let (state, memory) = save();
    let today: Value = serde_json::from_slice(&state[HEADER..]).unwrap();
    if std::env::var_os("LODGE_RECORD").is_some() {
        let name = format!("{}.json", env!("CARGO_PKG_VERSION"));
        fs::write(directory().join(name), &state[HEADER..]).unwrap();
    }
    let mut restored = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let recorded = fs::read(&path).unwrap();
        let mut machine: Value = serde_json::from_slice(&recorded).unwrap();
        // The processors of this host instead of those it was recorded on.
        for part in ["cpuid", "vcpus", "chipset"] {
            assert!(machine[part].is_array() || machine[part].is_object());
            machine[part] = today[part].clone();
        }
        // Whoever reads it ignores what it does not know.
        machine["devices"]["devices"][0][1]["body"]["unheard-of"] = Value::from(7);
        machine["unheard-of"] = Value::from(7);
        let body = serde_json::to_vec(&machine).unwrap();
        let restore = Some([state_file(&body), memory.try_clone().unwrap()]);
        let guest = Guest::try_start(Options {
            restore,
            ..everything()
        });
        let mut guest = guest.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(guest.state(), RunState::Running, "{}", path.display());
        guest.kill();
        restored += 1;
    }
    assert!(restored > 0, "nothing was recorded");
}
