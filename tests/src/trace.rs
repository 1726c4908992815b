//! Where the time of a test goes: with `LODGE_TEST_TRACE` in the environment, every command and every wait is printed with how long it took.

use std::time::{Duration, Instant};

/// Shorter ones are left out.
const SHORT: Duration = Duration::from_millis(200);

/// Does something that may take its time.
pub(crate) fn timed<T>(what: impl FnOnce() -> String, something: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = something();
    let took = began.elapsed();
    if took >= SHORT && std::env::var_os("LODGE_TEST_TRACE").is_some() {
        eprintln!("{:6.1} s  {}", took.as_secs_f64(), what());
    }
    done
}
