//! The variable store of EDK2 in the image of a flash chip (edk2, `MdeModulePkg/Include/Guid/VariableFormat.h`; the volume
//! around it: PI 1.8 volume 3, 3.2.1).
//!
//! A firmware volume header, a store header, then variables one after the other. What comes behind the store, with which
//! EDK2 outlives power cuts while it makes room (fault tolerant writes), is left as it is. The guest writes all of it:
//! nothing in it is believed.

use std::collections::HashMap;

use uuid::Uuid;

/// `gEfiSystemNvDataFvGuid`, at offset 16 of the volume.
const VOLUME: Uuid = Uuid::from_u128(0xfff12b8d_7696_4c8b_a985_2747075b4f50);
/// `gEfiAuthenticatedVariableGuid`, at the beginning of the store.
const AUTHENTICATED: Uuid = Uuid::from_u128(0xaaf32c78_947b_439a_a180_2e144ec37792);
const VOLUME_SIGNATURE: &[u8] = b"_FVH";
/// `VARIABLE_STORE_HEADER`: GUID, size, format, state, reserved.
const STORE_HEADER: usize = 28;
const FORMATTED: u8 = 0x5a;
const HEALTHY: u8 = 0xfe;

/// `AUTHENTICATED_VARIABLE_HEADER`, packed; name and data follow.
const HEADER: usize = 60;
const START: u16 = 0x55aa;
const ADDED: u8 = 0x3f;
/// A newer one of the same name was being written; it counts until that is there.
const IN_DELETED_TRANSITION: u8 = 0x3e;
/// Each begins at a multiple of this.
const ALIGNMENT: usize = 4;
/// What erased flash reads as.
const ERASED: u8 = 0xff;

/// Not a variable store, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest's UEFI variables cannot be read: {0}")]
pub(super) struct Unreadable(&'static str);

/// The variables do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest's UEFI variables would take {needed} bytes, and there is room for {room}")]
pub(super) struct Full {
    needed: usize,
    room: usize,
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    /// UTF-16, without the NUL at its end; whatever the guest put there.
    pub(super) name: Vec<u16>,
    pub(super) guid: Uuid,
    pub(super) attributes: u32,
    pub(super) data: Vec<u8>,
    /// Monotonic count, time stamp and public key index, as they are in the header.
    authentication: [u8; 28],
}

impl Variable {
    /// One that was never authenticated.
    pub(super) fn new(name: &str, guid: Uuid, attributes: u32, data: Vec<u8>) -> Self {
        Self {
            name: name.encode_utf16().collect(),
            guid,
            attributes,
            data,
            authentication: [0; 28],
        }
    }

    /// Its name as people see it.
    pub(super) fn shown(&self) -> String {
        String::from_utf16_lossy(&self.name)
    }

    fn write(&self, image: &mut Vec<u8>) {
        image.extend(START.to_le_bytes());
        image.extend([ADDED, 0]);
        image.extend(self.attributes.to_le_bytes());
        image.extend(self.authentication);
        // Neither is longer than the image.
        image.extend(((self.name.len() as u32 + 1) * 2).to_le_bytes());
        image.extend((self.data.len() as u32).to_le_bytes());
        image.extend(self.guid.to_bytes_le());
        image.extend(self.name.iter().flat_map(|unit| unit.to_le_bytes()));
        image.extend([0; 2]);
        image.extend(&self.data);
    }
}

/// The image of a chip, and the variables in it.
#[derive(Debug, Clone)]
pub(super) struct Store {
    image: Vec<u8>,
    /// Where variables are.
    begin: usize,
    end: usize,
    pub(super) variables: Vec<Variable>,
}

impl Store {
    /// Reads the variables that count.
    pub(super) fn parse(image: Vec<u8>) -> Result<Self, Unreadable> {
        let (begin, end) = area(&image)?;
        let mut variables: Vec<(u8, Variable)> = Vec::new();
        let mut known: HashMap<(Vec<u16>, Uuid), usize> = HashMap::new();
        let mut at = begin;
        while let Some((next, found)) = entry(&image[..end], at) {
            at = next;
            let Some((state, variable)) = found else {
                continue;
            };
            let key = (variable.name.clone(), variable.guid);
            match known.get(&key) {
                None => {
                    known.insert(key, variables.len());
                    variables.push((state, variable));
                }
                Some(&before) if variables[before].0 != ADDED && state == ADDED => {
                    variables[before] = (state, variable);
                }
                Some(_) => {}
            }
        }
        Ok(Self {
            image,
            begin,
            end,
            variables: variables
                .into_iter()
                .map(|(_, variable)| variable)
                .collect(),
        })
    }

    /// The image with the variables as they are now, one behind the other, and all else as it was.
    pub(super) fn into_image(self) -> Result<Vec<u8>, Full> {
        let Self {
            mut image,
            begin,
            end,
            variables,
        } = self;
        let mut area = Vec::with_capacity(end - begin);
        for variable in &variables {
            variable.write(&mut area);
            let aligned = (begin + area.len()).next_multiple_of(ALIGNMENT) - begin;
            area.resize(aligned, ERASED);
        }
        let room = end - begin;
        if area.len() > room {
            let needed = area.len();
            return Err(Full { needed, room });
        }
        area.resize(room, ERASED);
        image[begin..end].copy_from_slice(&area);
        Ok(image)
    }
}

/// Where in the image variables are, behind both headers.
fn area(image: &[u8]) -> Result<(usize, usize), Unreadable> {
    let unreadable = |what| Err(Unreadable(what));
    if guid(image, 16) != Some(VOLUME) || image.get(40..44) != Some(VOLUME_SIGNATURE) {
        return unreadable("they are not in a firmware volume");
    }
    let header = usize::from(u16_at(image, 48).unwrap_or(0));
    let Some(volume_header) = image.get(..header).filter(|header| header.len() % 2 == 0) else {
        return unreadable("the volume's header is cut short");
    };
    let words = volume_header
        .chunks_exact(2)
        .map(|word| u16::from_le_bytes([word[0], word[1]]));
    if words.fold(0, u16::wrapping_add) != 0 {
        return unreadable("the volume's header has a wrong checksum");
    }
    let Some(store) = image.get(header..header.saturating_add(STORE_HEADER)) else {
        return unreadable("the store's header is cut short");
    };
    if guid(store, 0) != Some(AUTHENTICATED) || store[20..22] != [FORMATTED, HEALTHY] {
        return unreadable("the store has a format that is not known");
    }
    let size = u32_at(store, 16).map_or(0, |size| size as usize);
    let begin = (header + STORE_HEADER).next_multiple_of(ALIGNMENT);
    match header.checked_add(size) {
        Some(end) if end <= image.len() && begin <= end => Ok((begin, end)),
        _ => unreadable("the store is longer than the chip"),
    }
}

/// What a place holds: the place behind it, and the variable with its state, if it counts. `None` where no more come.
fn entry(image: &[u8], at: usize) -> Option<(usize, Option<(u8, Variable)>)> {
    let header = image.get(at..at.checked_add(HEADER)?)?;
    if u16_at(header, 0)? != START {
        return None;
    }
    let (attributes, name, data) = (u32_at(header, 4)?, u32_at(header, 36)?, u32_at(header, 40)?);
    // A header that was being written when the power was cut: nothing follows it that belongs to it.
    let (name, data) = match [attributes, name, data].contains(&u32::MAX) {
        true => (0, 0),
        false => (name as usize, data as usize),
    };
    let name_end = (at + HEADER).checked_add(name)?;
    let data_end = name_end.checked_add(data)?;
    let (name, data) = (
        image.get(at + HEADER..name_end)?,
        image.get(name_end..data_end)?,
    );
    let next = data_end.next_multiple_of(ALIGNMENT);
    let state = header[2];
    let name = match state {
        ADDED | IN_DELETED_TRANSITION => parse_name(name),
        _ => None,
    };
    let variable = name.map(|name| Variable {
        name,
        guid: guid(header, 44).unwrap_or_default(),
        attributes,
        data: data.to_vec(),
        authentication: std::array::from_fn(|index| header[8 + index]),
    });
    Some((next, variable.map(|variable| (state, variable))))
}

/// A name that ends with its first NUL, and is not empty.
fn parse_name(bytes: &[u8]) -> Option<Vec<u16>> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2);
    let mut name: Vec<u16> = units
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    let terminated = name.pop() == Some(0);
    (terminated && !name.is_empty() && !name.contains(&0)).then_some(name)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn guid(bytes: &[u8], at: usize) -> Option<Uuid> {
    Some(Uuid::from_bytes_le(
        bytes.get(at..at + 16)?.try_into().ok()?,
    ))
}
