//! Makes a raw disk of an image, as an import does, and says how long that took: to measure beside `qemu-img convert`.
//!
//!     cargo run --release -p lodge-block --example convert -- IMAGE RAW [THREADS]

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use lodge_block::foreign::{self, Part};
use lodge_block::format::detect_file;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: convert IMAGE RAW [THREADS]"));
    };
    let from = File::open(from)?;
    let to = File::create_new(to)?;
    let begun = Instant::now();
    let part = Part::whole(&from)?;
    let mut image = foreign::open(part, detect_file(&from)?.format).map_err(io::Error::other)?;
    let threads = match arguments.next() {
        Some(number) => number.to_string_lossy().parse().map_err(io::Error::other)?,
        None => std::thread::available_parallelism()?.get().min(4),
    };
    let done = foreign::convert(image.as_mut(), part, &to, threads, &mut |_| {
        ControlFlow::Continue(())
    })
    .map_err(io::Error::other)?;
    println!(
        "{}: {} of {} bytes in {:.2} s",
        image.describe(),
        done.copied,
        done.size,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
