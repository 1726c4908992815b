use proptest::prelude::*;

use super::edit::hex;
use super::store::*;
use super::*;

/// Debian's variables with the keys of Secure Boot, which OVMF itself has written.
const OVMF: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

const HEADER: usize = 72;
/// Room for variables.
const ROOM: usize = 4096 - HEADER - 28;
const FIRST: usize = HEADER + 28;

/// A chip of two blocks: an empty store, and one for what is none of ours.
fn chip() -> Vec<u8> {
    let mut image = vec![0; HEADER];
    let guid = Uuid::from_u128(0xfff12b8d_7696_4c8b_a985_2747075b4f50);
    image[16..32].copy_from_slice(&guid.to_bytes_le());
    image[32..40].copy_from_slice(&8192_u64.to_le_bytes());
    image[40..44].copy_from_slice(b"_FVH");
    image[48] = HEADER as u8;
    image[55] = 2;
    checksum(&mut image);
    let guid = Uuid::from_u128(0xaaf32c78_947b_439a_a180_2e144ec37792);
    image.extend(guid.to_bytes_le());
    image.extend((4096 - HEADER as u32).to_le_bytes());
    image.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
    image.resize(4096, 0xff);
    image.resize(8192, 0x77);
    image
}

fn checksum(image: &mut [u8]) {
    image[50..52].fill(0);
    let words = image[..HEADER].chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    image[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
}

fn variable(name: &str, data: &[u8]) -> Variable {
    Variable::new(name, Uuid::from_u128(7), 7, data.to_vec())
}

fn with(variables: Vec<Variable>) -> Vec<u8> {
    let mut store = Store::parse(chip()).unwrap();
    store.variables = variables;
    store.into_image().unwrap()
}

#[test]
fn variables_are_where_edk2_looks_for_them() {
    let image = with(vec![variable("AB", &[1, 2, 3]), variable("C", &[4])]);
    assert_eq!(image[FIRST..FIRST + 8], [0xaa, 0x55, 0x3f, 0, 7, 0, 0, 0]);
    assert_eq!(image[FIRST + 36..FIRST + 44], [6, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(image[FIRST + 60..FIRST + 69], *b"A\0B\0\0\0\x01\x02\x03");
    // Both headers at a multiple of four, and erased flash behind the last.
    assert_eq!(image[FIRST + 72..FIRST + 74], [0xaa, 0x55]);
    assert_eq!(image[FIRST + 72 + 60 + 5..4096], [0xff; ROOM - 137]);
    assert_eq!(image[..FIRST], chip()[..FIRST]);
    assert_eq!(image[4096..], [0x77; 4096]);
}

#[test]
fn only_what_counts_is_read() {
    let many = ["old", "A", "B", "A", "B", "half"].map(|name| variable(name, name.as_bytes()));
    let mut image = with(many.to_vec());
    let mut at = FIRST;
    // Deleted; replaced by a newer one; not replaced yet; that newer one; a second of the name; being written.
    for state in [0x3d, 0x3e, 0x3e, 0x3f, 0x7f, 0xff] {
        image[at + 2] = state;
        let length = 60 + usize::from(image[at + 36]) + usize::from(image[at + 40]);
        at = (at + length).next_multiple_of(4);
    }
    image[FIRST + 60] = b'?';
    let store = Store::parse(image.clone()).unwrap();
    let names: Vec<_> = store.variables.iter().map(Variable::shown).collect();
    assert_eq!(names, ["A", "B"]);
    // Cut off at a header that was being written: what follows it is read.
    image[FIRST + 36..FIRST + 44].fill(0xff);
    assert!(Store::parse(image).unwrap().variables.is_empty());
}

#[test]
fn what_is_no_store_is_refused() {
    assert!(Store::parse(Vec::new()).is_err());
    assert!(Store::parse(vec![0xff; 8192]).is_err());
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 7] = [
        |image| image[17] ^= 1,
        |image| image[40] = b'-',
        |image| image[60] ^= 1,
        |image| image[HEADER] ^= 1,
        |image| image[HEADER + 20] = 0,
        |image| image[HEADER + 18] = 0xff,
        |image| image.truncate(FIRST - 1),
    ];
    for damage in damages {
        let mut image = chip();
        damage(&mut image);
        assert!(Store::parse(image).is_err());
    }
    let mut odd = chip();
    odd[48] = 0xff;
    checksum(&mut odd);
    assert!(Store::parse(odd).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut store = Store::parse(chip()).unwrap();
    store.variables = vec![variable("A", &[0; ROOM - 64])];
    assert!(store.clone().into_image().is_ok());
    store.variables.push(variable("B", &[1]));
    assert!(store.into_image().is_err());
}

#[test]
fn what_ovmf_has_written_is_read_and_kept() {
    let Ok(image) = std::fs::read(OVMF) else {
        eprintln!("SKIPPED: there is no {OVMF} on this machine");
        return;
    };
    let store = Store::parse(image.clone()).unwrap();
    let find = |name: &str| {
        let found = store.variables.iter().find(|found| found.shown() == name);
        found.unwrap_or_else(|| panic!("{name} is missing"))
    };
    assert_eq!(find("Timeout").data.len(), 2);
    assert_eq!(find("db").attributes, 39);
    assert!(find("Attempt 1").data.len() > 1000);
    assert_eq!(hex(&find("SecureBootEnable").data), "01");
    let again = store.clone().into_image().unwrap();
    assert_eq!(
        Store::parse(again.clone()).unwrap().variables,
        store.variables
    );
    // Behind the variables nothing changes, and written once more it is the same.
    assert_eq!(again[0x4_0000..], image[0x4_0000..]);
    assert_eq!(
        Store::parse(again.clone()).unwrap().into_image().unwrap(),
        again
    );
}

fn id(text: &str) -> Result<VariableId, Problem> {
    VariableId::parse(text)
}

#[test]
fn a_variable_is_named_as_linux_names_it() {
    const GUID: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    for name in ["Boot0001", "Attempt 1", "a-b-", "ä", "/../:"] {
        assert!(id(&format!("{name}-{GUID}")).is_ok(), "{name}");
    }
    let long = "x".repeat(513);
    for wrong in ["", "Boot", "BootOrder-", "A\0", &long] {
        assert!(id(&format!("{wrong}-{}", &GUID[1..])).is_err(), "{wrong}");
    }
    for wrong in [
        GUID.to_owned(),
        format!("-{GUID}"),
        format!("{long}-{GUID}"),
        format!("A\0-{GUID}"),
    ] {
        assert!(id(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn changes_are_checked_and_keep_what_they_do_not_name() {
    let key = || id("A-00000000-0000-0000-0000-000000000007").unwrap();
    let set = |data: &str, attributes| {
        let data = data.to_owned();
        Edit::set(key(), &VmVariableSet { data, attributes })
    };
    let big = "00".repeat(VmVariableSet::MOST + 1);
    for (data, attributes, pointer) in [
        ("", None, "/data"),
        ("0", None, "/data"),
        ("0g", None, "/data"),
        ("+1", None, "/data"),
        ("ä", None, "/data"),
        (&big, None, "/data"),
        ("00", Some(0), "/attributes"),
        ("00", Some(6), "/attributes"),
        ("00", Some(5), "/attributes"),
        ("00", Some(0x47), "/attributes"),
    ] {
        let problem = set(data, attributes).unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some(pointer));
    }
    let mut variables = vec![variable("B", &[1])];
    let keys = [0xfe, 0xDC];
    set("fEdC", None).unwrap().apply(&mut variables).unwrap();
    assert_eq!(variables[1], variable("A", &keys));
    set("01", Some(3)).unwrap().apply(&mut variables).unwrap();
    assert_eq!((variables[1].attributes, variables.len()), (3, 2));
    Edit::Delete(key()).apply(&mut variables).unwrap();
    assert_eq!(variables, [variable("B", &[1])]);
    let problem = Edit::Delete(key()).apply(&mut variables).unwrap_err();
    assert_eq!(problem.code, ErrorCode::NotFound);
}

fn any_variable() -> impl Strategy<Value = Variable> {
    (
        "\\PC{1,8}",
        any::<u128>(),
        any::<u32>(),
        proptest::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(name, guid, attributes, data)| {
            Variable::new(&name, Uuid::from_u128(guid), attributes & 0x2f, data)
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(variables in proptest::collection::vec(any_variable(), 0..10)) {
        let image = with(variables.clone());
        prop_assert_eq!(Store::parse(image).unwrap().variables, variables);
    }

    /// A guest that writes what it likes: it is read or refused, and what is read can be written and read again.
    #[test]
    fn any_content_is_read_or_refused(
        variables in proptest::collection::vec(any_variable(), 0..10),
        damages in proptest::collection::vec((0..4200_usize, any::<u8>()), 0..30),
        headers in any::<bool>(),
        length in 0..8192_usize,
    ) {
        let mut image = with(variables);
        for (at, value) in damages {
            // Most of them behind the headers, or nothing would be read.
            let at = if headers { at } else { FIRST + at % ROOM };
            image[at] = value;
        }
        if headers {
            image.truncate(length.max(100));
        }
        if let Ok(store) = Store::parse(image) {
            let variables = store.variables.clone();
            if let Ok(image) = store.into_image() {
                prop_assert_eq!(Store::parse(image).unwrap().variables, variables);
            }
        }
    }

    #[test]
    fn any_name_is_taken_or_refused(text in "\\PC{0,60}") {
        let _ = id(&text);
    }
}
