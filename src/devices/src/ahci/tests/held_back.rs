//! Commands that the host fails and the disk holds back. A file that is cut short fails reads, until it is made longer again.

use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;

use lodge_block::engine::IoError;

use super::*;
use crate::ahci::port::bits::at;
use crate::on_error::OnError;

const SIZE: u64 = 1 << 20;
/// READ DMA EXT.
const READ: u8 = 0x25;
/// READ FPDMA QUEUED.
const READ_QUEUED: u8 = 0x60;

#[test]
fn what_failed_is_done_again_when_the_disk_is_resumed() {
    let (rig, handle, file) = disk_rig(SIZE);
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let stuck = move |error| tell.lock().unwrap().send(error).unwrap();
    handle.errors().on_stuck(Box::new(stuck));
    handle.errors().set(OnError::HoldBack);
    let last = SIZE / 512 - 1;
    for queued in [false, true] {
        file.set_len(SIZE / 2).unwrap();
        let frame = match queued {
            true => queued_frame(READ_QUEUED, 3, last, 1),
            false => frame(READ, 0, last, 1),
        };
        rig.prepare(0, 3, &frame, 0, &[(DATA, 512)]);
        if queued {
            rig.set_port(0, at::SACT, 1 << 3);
        }
        rig.issue(0, 1 << 3);
        assert_eq!(heard.recv().unwrap(), IoError::EndOfFile);
        let saved = {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            function.save()
        };
        assert_eq!(rig.port(0, at::CI), 1 << 3);
        assert_eq!(rig.port(0, at::IS) & TASK_FILE_ERROR, 0);
        file.set_len(SIZE).unwrap();
        let content = [7 + u8::from(queued); 512];
        file.write_all_at(&content, SIZE - 512).unwrap();
        {
            let mut function = rig.function.lock().unwrap();
            // What is held back is part of the state.
            function.restore(&saved).unwrap();
            function.resume();
        }
        rig.until("the command", || {
            rig.port(0, at::CI) == 0 && rig.port(0, at::SACT) == 0
        });
        assert_eq!(rig.port(0, at::IS) & TASK_FILE_ERROR, 0);
        assert_eq!(rig.get(DATA, 512), content);
    }
    assert_eq!(handle.statistics().totals().errors, 2);
}
