//! Sparse copies.

use std::os::unix::fs::MetadataExt;

use super::*;

fn nothing(_: CopyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// 40 MiB with data at both ends and in the middle.
fn source() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(40 << 20).unwrap();
    for offset in [0, (20 << 20) + 4096, (40 << 20) - 4096] {
        file.write_all_at(&[offset as u8 | 1; 4096], offset)
            .unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn content(file: &File) -> Vec<u8> {
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

#[test]
fn copies_data_and_keeps_holes() {
    let from = source();
    let to = tempfile::tempfile().unwrap();
    let mut last = None;
    sparse(&from, &to, &mut |progress| {
        last = Some(progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(content(&from) == content(&to));
    let last = last.unwrap();
    assert_eq!((last.position, last.size), (40 << 20, 40 << 20));
    assert!(last.copied < 1 << 20, "{last:?}");
    to.sync_all().unwrap();
    assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn copies_through_memory_where_the_kernel_does_not() {
    let (from, to) = (source(), tempfile::tempfile().unwrap());
    to.set_len(40 << 20).unwrap();
    let mut copier = Copier {
        from: &from,
        to: &to,
        in_kernel: false,
        buffer: Vec::new(),
    };
    let mut position = 0;
    while position < 40 << 20 {
        position += copier.copy(position, CHUNK).unwrap();
    }
    assert_eq!(copier.copy(position, CHUNK).unwrap(), 0);
    assert!(content(&from) == content(&to));
}

#[test]
fn stops_when_told() {
    let from = tempfile::tempfile().unwrap();
    from.write_all_at(&[1; 1 << 20], 0).unwrap();
    let to = tempfile::tempfile().unwrap();
    let stopped = sparse(&from, &to, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(CopyError::Cancelled)));
}

#[test]
fn copies_nothing_of_an_empty_file() {
    let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    sparse(&from, &to, &mut nothing).unwrap();
    assert_eq!(to.metadata().unwrap().len(), 0);
    from.set_len(5 << 20).unwrap();
    sparse(&from, &to, &mut nothing).unwrap();
    assert_eq!(content(&to), vec![0; 5 << 20]);
}
