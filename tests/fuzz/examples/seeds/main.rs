//! Writes the corpus: what honest drivers, kernels and monitors say, so that fuzzers begin where that ends.
//!
//!     cargo run -p lodge-fuzz --example seeds [FOLDER]
//!
//! Without a folder, into `tests/fuzz/corpus`. Inputs that fuzzers have found may lie there beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod ahci;
mod e1000e;
mod files;
mod images;
mod nvme;
mod registers;
mod rfb;
mod script;
mod virtio;

fn main() -> io::Result<()> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folder = std::env::args_os().nth(1).map_or(default, PathBuf::from);
    let seeds = [
        registers::seeds(),
        virtio::seeds(),
        ahci::seeds(),
        nvme::seeds(),
        e1000e::seeds(),
        rfb::seeds(),
        files::seeds()?,
        images::seeds()?,
    ];
    for (target, name, bytes) in seeds.concat() {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
