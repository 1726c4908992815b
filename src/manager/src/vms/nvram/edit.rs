//! Changes of UEFI variables: checked when they are asked for, made when the guest's task gets to them.

use std::fmt::Write as _;

use lodge_api::Problem;
use lodge_api::nvram::VmVariableSet;
use uuid::Uuid;

use super::store::Variable;
use crate::catalogue;

/// Attributes (UEFI 2.10, 8.2).
const NON_VOLATILE: u32 = 1 << 0;
const BOOT_SERVICE: u32 = 1 << 1;
const RUNTIME: u32 = 1 << 2;
const HARDWARE_ERROR: u32 = 1 << 3;
const TIME_AUTHENTICATED: u32 = 1 << 5;
/// What a variable has that was given none.
const DEFAULT: u32 = NON_VOLATILE | BOOT_SERVICE | RUNTIME;
/// What a variable in flash can have.
const POSSIBLE: u32 = DEFAULT | HARDWARE_ERROR | TIME_AUTHENTICATED;

/// Longest name in UTF-16 units. Firmware's own are a tenth of it.
const MOST_NAME: usize = 512;
/// Digits of a GUID in a path.
const GUID: usize = 36;

/// A change.
#[derive(Debug)]
pub(crate) enum Edit {
    /// Make or change one.
    Set {
        id: VariableId,
        attributes: Option<u32>,
        data: Vec<u8>,
    },
    /// Delete one.
    Delete(VariableId),
    /// Forget all.
    Reset,
}

/// Which variable: `NAME-GUID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VariableId {
    name: String,
    guid: Uuid,
}

impl VariableId {
    /// Reads it from a path.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let split = text.len().checked_sub(GUID + 1);
        let parts =
            split.and_then(|at| Some((text.get(..at)?, text.get(at..)?.strip_prefix('-')?)));
        let id = parts.and_then(|(name, guid)| {
            let name = name.to_owned();
            let guid = Uuid::try_parse(guid).ok()?;
            let length = name.encode_utf16().count();
            let possible = (1..=MOST_NAME).contains(&length) && !name.contains('\0');
            possible.then_some(Self { name, guid })
        });
        id.ok_or_else(|| {
            let detail = format!("\"{}\" names no UEFI variable", catalogue::shown(text));
            Problem::invalid("", detail).with_hint(
                "write its name and GUID, like BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c",
            )
        })
    }

    /// Whether it means this one. A name that is no Unicode is meant by what is shown of it.
    pub(super) fn is(&self, variable: &Variable) -> bool {
        variable.guid == self.guid && variable.shown() == self.name
    }

    pub(super) fn not_found(&self) -> Problem {
        Problem::not_found("UEFI variable", format!("{}-{}", self.name, self.guid))
    }
}

impl Edit {
    /// A variable to be made or changed, checked.
    pub(super) fn set(id: VariableId, set: &VmVariableSet) -> Result<Self, Problem> {
        let data = bytes(&set.data).ok_or_else(|| {
            Problem::invalid("/data", "this is not hexadecimal")
                .with_hint("write two digits for each byte, like 0000")
        })?;
        if data.is_empty() || data.len() > VmVariableSet::MOST {
            let detail = format!("{} bytes of data are not possible", data.len());
            return Err(Problem::invalid("/data", detail).with_hint(format!(
                "give 1 to {} bytes, or delete the variable",
                VmVariableSet::MOST
            )));
        }
        let attributes = set.attributes;
        if let Some(problem) = attributes.and_then(wrong_attributes) {
            let hint =
                "7 is for variables that the system reads and writes, 3 for the firmware's own";
            return Err(Problem::invalid("/attributes", problem).with_hint(hint));
        }
        Ok(Self::Set {
            id,
            attributes,
            data,
        })
    }

    /// Makes the change.
    pub(super) fn apply(self, variables: &mut Vec<Variable>) -> Result<(), Problem> {
        match self {
            Self::Set {
                id,
                attributes,
                data,
            } => match variables.iter_mut().find(|variable| id.is(variable)) {
                Some(variable) => {
                    variable.data = data;
                    variable.attributes = attributes.unwrap_or(variable.attributes);
                }
                None => {
                    let attributes = attributes.unwrap_or(DEFAULT);
                    variables.push(Variable::new(&id.name, id.guid, attributes, data));
                }
            },
            Self::Delete(id) => {
                let at = variables.iter().position(|variable| id.is(variable));
                variables.remove(at.ok_or_else(|| id.not_found())?);
            }
            Self::Reset => variables.clear(),
        }
        Ok(())
    }
}

fn wrong_attributes(attributes: u32) -> Option<&'static str> {
    if attributes & !POSSIBLE != 0 {
        Some("there are bits that no variable in flash has")
    } else if attributes & NON_VOLATILE == 0 {
        Some("only non-volatile variables (1) are kept")
    } else if attributes & BOOT_SERVICE == 0 {
        Some("every variable is there for boot services (2)")
    } else {
        None
    }
}

/// Two digits for each byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}
