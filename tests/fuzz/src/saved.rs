//! Saved states from strangers.

use lodge_devices::lifecycle::Shared;
use serde_json::{Value, json};

use crate::file::empty_file;
use crate::input::Input;
use crate::operation::run;
use crate::whole::Whole;

/// The body of a state's file.
///
/// # Panics
/// When a state is not the same after it was written and read again.
pub fn file(data: &[u8]) {
    lodge_vmm::fuzzing::read_state(data, empty_file).expect("the host has memory");
}

/// States of the devices of a machine with anything in them: each device takes its state or leaves it, and works on.
///
/// # Panics
/// When a device does something wrong.
pub fn devices(data: &[u8]) {
    Whole::with(|_| true, |whole| forge(whole, data));
}

fn forge(whole: &mut Whole, data: &[u8]) {
    let mut input = Input::new(data);
    // What the machine is doing when it is saved, and what is changed in its state.
    let before = input.counted().unwrap_or_default();
    let forgeries = input.counted().unwrap_or_default();
    run(whole, Input::new(before));
    whole.machine.devices.pause();
    let mut forgeries = Input::new(forgeries);
    while let Some((device, leaf, value)) = forgery(&mut forgeries) {
        let devices: Vec<Shared> = whole.machine.devices.iter().cloned().collect();
        restore_forged(&devices[device % devices.len()], leaf, value);
    }
    whole.machine.devices.resume();
    run(whole, input);
}

fn restore_forged(device: &Shared, leaf: usize, value: Value) {
    let mut device = device.lock().expect("nobody else has it");
    let honest = device.save();
    let mut forged = honest.clone();
    let mut paths = Vec::new();
    leaves(&forged.body, String::new(), &mut paths);
    let Some(path) = paths.get(leaf % paths.len().max(1)) else {
        return;
    };
    if let Some(place) = forged.body.pointer_mut(path) {
        *place = value;
    }
    if device.restore(&forged).is_err() {
        assert_eq!(device.save(), honest, "refused and yet changed");
        return;
    }
    // Whatever it made of it, that is a state like any other.
    let taken = device.save();
    device.restore(&taken).expect("own state is taken");
    assert_eq!(device.save(), taken);
}

/// A device, something in its state, and what is put there.
fn forgery(input: &mut Input<'_>) -> Option<(usize, usize, Value)> {
    let device = input.u8()?.into();
    let leaf = input.u16()?.into();
    let value = match input.u8()? % 8 {
        0 | 1 => json!(input.u8()?),
        2 => json!(input.u16()?),
        3 => json!(input.u32()?),
        4 => json!(input.u64()?),
        5 => json!(input.u64()?.cast_signed()),
        6 => json!(input.u8()? & 1 == 0),
        _ => [json!(null), json!([]), json!({}), json!("x"), json!(0.5)]
            [usize::from(input.u8()?) % 5]
            .clone(),
    };
    Some((device, leaf, value))
}

/// Paths to everything that is not a list or structure itself, and to those that are empty.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                leaves(field, format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path),
    }
}
