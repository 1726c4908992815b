//! What a guest may ask of its machine as a whole.

/// Ends or restarts the machine. Implemented by the monitor.
///
/// Called on a vCPU thread with a device's lock held: an implementation notes
/// the wish, wakes whoever acts on it, and returns.
pub trait PowerControl: Send + Sync {
    /// The guest wants a hardware reset.
    fn reset(&self);

    /// The guest has shut down and wants the power cut (ACPI S5).
    fn power_off(&self);
}
