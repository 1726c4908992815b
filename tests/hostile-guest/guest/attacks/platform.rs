//! Addresses of the chipset, and what lies right beside them.

use crate::World;
use crate::io::{Width, load, store};
use crate::memory::ARENA;

/// Pages that are read and written: where devices of other machines are, neighbours of interrupt controllers,
/// the generation id, the flash chip and what is below it.
const PAGES: &[u64] = &[
    0xfebf_f000,
    0xfec0_1000,
    0xfed0_0000,
    0xfed1_c000,
    0xfed4_0000,
    0xfedf_f000,
    0xfee0_1000,
    0xfef0_0000,
    0xfeff_a000,
    0xfeff_b000,
    0xff00_0000,
    0xffe0_0000,
    0xfff7_f000,
    0xffff_0000,
    0xffff_f000,
];

/// Pages of the kernel's interrupt controllers, which are only read: written to, they would interrupt this program.
const READ_ONLY: &[u64] = &[0xfec0_0000, 0xfee0_0000];

pub fn pages(world: &mut World) {
    for _ in 0..world.rounds {
        for &page in PAGES.iter().chain(READ_ONLY) {
            let written = !READ_ONLY.contains(&page);
            for offset in (0..0x40)
                .chain((0x40..0xff0).step_by(0x3f))
                .chain(0xff0..0xff8)
            {
                for &width in world.widths(Width::ALL) {
                    load(page + offset, width);
                    if written {
                        store(page + offset, width, world.random.value());
                    }
                }
            }
        }
    }
}

/// Accesses with one part here and one there: memory and nothing, a BAR and nothing, two pages.
pub fn borders(world: &mut World) {
    let mut borders = [
        world.memory_end,
        0xb000_0000,
        0xc000_0000,
        0xfec0_0000,
        0xfeff_b000,
        0xfeff_c000,
        0,
        0,
    ];
    let mut functions = world.functions.with_bar();
    if let Some(function) = functions.next() {
        borders[6] = function.bar + function.length;
        borders[7] = function.bar + 0x1000;
    }
    for border in borders.into_iter().filter(|&border| border > ARENA) {
        for before in 1..8 {
            for width in [Width::Word, Width::Double, Width::Quad] {
                load(border - before, width);
                store(border - before, width, world.random.value());
            }
        }
    }
}
