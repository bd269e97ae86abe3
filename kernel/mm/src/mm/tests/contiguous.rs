//! Memory for devices.

use super::*;
use crate::addr::Pfn;
use crate::fallible::inject;
use crate::frame;
use crate::mm::migrate;
use crate::object::contiguous::Contiguous;
use crate::page_alloc::Gfp;

fn mapped(mm: &Space, memory: &Contiguous<&'static Sim>) -> usize {
    let object = Some((memory.object().clone(), 0));
    let len = memory.pages() * PAGE;
    let request = MapRequest { addr: 0, len, prot: RW, flags: Map::SHARED, object, max_prot: RW };
    mm.map(&request).unwrap().get()
}

#[test]
fn a_device_and_programs_see_the_same_bytes_one_after_the_other() {
    let rig = Rig::new(64);
    for pages in [1, 3, 8, 100] {
        let memory = Contiguous::new(rig.sim, pages, Gfp::KERNEL).unwrap();
        let (one, other) = (rig.space(), rig.space());
        let (at, there) = (mapped(&one, &memory), mapped(&other, &memory));
        for page in 0..pages {
            rig.write(&one, at + page * PAGE, page as u64 + 7).unwrap();
            assert_eq!(rig.read(&other, there + page * PAGE), Ok(page as u64 + 7));
            let frame = rig.sim.direct_map(memory.addr() + page * PAGE).cast::<u64>();
            // SAFETY: memory of the simulated machine, which only this thread touches.
            assert_eq!(unsafe { frame.read() }, page as u64 + 7);
        }
        rig.idle(0);
        drop((one, other, memory));
        rig.assert_balanced();
    }
}

#[test]
fn it_stays_where_it_is_while_the_device_may_write_to_it() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let memory = Contiguous::new(rig.sim, 2, Gfp::KERNEL).unwrap();
    let at = mapped(&mm, &memory);
    rig.write(&mm, at, 1).unwrap();
    let pfn = memory.addr().pfn();
    let moved = |pfn| migrate(rig.sim, pfn, || frame::alloc_to_move(rig.sim));
    assert!(moved(pfn).is_err() && moved(Pfn(pfn.0 + 1)).is_err());
    // A program's mapping keeps the bytes, but not their place.
    drop(memory);
    assert_ne!(moved(pfn).unwrap(), pfn);
    assert_eq!(rig.read(&mm, at), Ok(1));
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn a_length_that_cannot_be_is_an_error() {
    let rig = Rig::new(16);
    for (pages, error) in [(0, Errno::EINVAL), (1025, Errno::ENOMEM), (1 << 40, Errno::ENOMEM)] {
        assert_eq!(Contiguous::new(rig.sim, pages, Gfp::KERNEL).err(), Some(error));
    }
    // More than there is.
    let mut held = std::vec::Vec::new();
    let error = loop {
        match Contiguous::new(rig.sim, 512, Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN) {
            Ok(memory) => held.push(memory),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::ENOMEM);
    drop(held);
    rig.assert_balanced();
}

#[test]
fn memory_that_runs_out_in_between_is_given_back() {
    let rig = Rig::new(64);
    let mut made = false;
    rig.sim.pages().ask_about_failures();
    for nth in 1..200 {
        inject::fail(Some(nth));
        let memory = Contiguous::new(rig.sim, 70, Gfp::KERNEL);
        inject::fail(None);
        made = memory.is_ok();
        drop(memory);
        rig.assert_balanced();
        if made {
            break;
        }
    }
    assert!(made);
}
