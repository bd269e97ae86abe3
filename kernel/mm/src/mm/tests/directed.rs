//! One behaviour a test.

use super::*;

#[test]
fn a_page_is_zero_then_what_was_written() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 3 * PAGE);
    assert_eq!(rig.read(&mm, at), Ok(0));
    rig.write(&mm, at, 7).unwrap();
    assert_eq!(rig.read(&mm, at), Ok(7));
    assert_eq!(rig.read(&mm, at + PAGE), Ok(0));
    assert_eq!(rig.read(&mm, at + 3 * PAGE), Err(FaultError::Unmapped));
    mm.validate();
    assert_eq!(mm.stats().rss_anon, 1);
    mm.unmap(at, 3 * PAGE).unwrap();
    assert_eq!(rig.read(&mm, at), Err(FaultError::Unmapped));
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn fork_copies_on_write_and_the_sole_owner_reuses() {
    let rig = Rig::new(64);
    let parent = rig.space();
    let at = anon(&rig, &parent, PAGE);
    rig.write(&parent, at, 1).unwrap();
    let free = free_pages(rig.sim);
    let child = parent.fork().unwrap();
    child.validate();
    rig.write(&child, at, 2).unwrap();
    assert_eq!(rig.read(&parent, at), Ok(1));
    assert_eq!(rig.read(&child, at), Ok(2));
    rig.idle(0);
    drop(child);
    assert_eq!(free_pages(rig.sim), free);
    // Nobody shares it any more: the write takes no page.
    rig.write(&parent, at, 3).unwrap();
    assert_eq!(free_pages(rig.sim), free);
    parent.validate();
    rig.idle(0);
    drop(parent);
    rig.assert_balanced();
}

#[test]
fn mmap_goes_top_down_and_neighbours_are_one() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let base = MmLayout::default().mmap_base.get();
    assert_eq!(anon(&rig, &mm, PAGE), base - PAGE);
    assert_eq!(anon(&rig, &mm, 3 * PAGE), base - 4 * PAGE);
    assert_eq!(mm.stats().areas, 1);
    mm.unmap(base - 3 * PAGE, PAGE).unwrap();
    assert_eq!(mm.stats().areas, 2);
    assert_eq!(anon(&rig, &mm, 2 * PAGE), base - 6 * PAGE, "the hole is too small");
    assert_eq!(anon(&rig, &mm, PAGE), base - 3 * PAGE, "the hole fits");
    assert_eq!(mm.stats().areas, 1);
    assert_eq!(map_at(&mm, 0x20_0000, PAGE, Prot::READ, Map::FIXED), Ok(0x20_0000));
    mm.protect(0x20_0000, PAGE, RW).unwrap();
    mm.validate();
}

#[test]
fn mmap_refuses_as_linux_does() {
    let rig = Rig::new(64);
    let mm = rig.space();
    assert_eq!(map_at(&mm, 0, 0, RW, Map::empty()), Err(Errno::EINVAL));
    assert_eq!(map_at(&mm, 0, usize::MAX, RW, Map::empty()), Err(Errno::ENOMEM));
    assert_eq!(map_at(&mm, 0, 1 << 49, RW, Map::empty()), Err(Errno::ENOMEM));
    assert_eq!(map_at(&mm, 0x20_0001, PAGE, RW, Map::FIXED), Err(Errno::EINVAL));
    assert_eq!(map_at(&mm, 0x1000, PAGE, RW, Map::FIXED), Err(Errno::EPERM));
    assert_eq!(map_at(&mm, 1 << 48, PAGE, RW, Map::FIXED), Err(Errno::ENOMEM));
    assert_eq!(map_at(&mm, 0x20_0000, PAGE, RW, Map::FIXED_NOREPLACE), Ok(0x20_0000));
    assert_eq!(map_at(&mm, 0x20_0000, PAGE, RW, Map::FIXED_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(map_at(&mm, 0, PAGE, RW, Map::SHARED_VALIDATE), Err(Errno::EINVAL), "anonymous");
    assert_eq!(map_at(&mm, 0, PAGE, RW, Map::SHARED | Map::GROWSDOWN), Err(Errno::EINVAL));
    let neither = MapRequest { flags: Map::ANONYMOUS, ..MapRequest::anonymous(PAGE, RW) };
    assert_eq!(mm.map(&neither), Err(Errno::EINVAL));
    mm.set_limit(crate::mm::Limit::AddressSpace, 3 * PAGE as u64);
    assert_eq!(map_at(&mm, 0, 3 * PAGE, RW, Map::empty()), Err(Errno::ENOMEM));
    assert!(map_at(&mm, 0x20_0000, 3 * PAGE, RW, Map::FIXED).is_ok(), "what is replaced does not count");
    mm.validate();
}

#[test]
fn brk_moves_the_end_of_the_heap() {
    let rig = Rig::new(64);
    let mm = rig.space();
    mm.set_brk_start(UserAddr::new(0x50_0000));
    assert_eq!(mm.brk(0).get(), 0x50_0000);
    assert_eq!(mm.brk(0x50_1800).get(), 0x50_1800);
    rig.write(&mm, 0x50_1ff0, 5).unwrap();
    assert_eq!(rig.read(&mm, 0x50_2000), Err(FaultError::Unmapped));
    assert_eq!(mm.brk(0x50_0800).get(), 0x50_0800);
    assert_eq!(rig.read(&mm, 0x50_1000), Err(FaultError::Unmapped));
    assert_eq!(mm.brk(0x4f_ffff).get(), 0x50_0800, "not below the start");
    map_at(&mm, 0x50_3000, PAGE, RW, Map::FIXED).unwrap();
    assert_eq!(mm.brk(0x50_4000).get(), 0x50_0800, "not over another area");
    assert_eq!(mm.brk(0x50_3000).get(), 0x50_3000);
    assert_eq!(rig.read(&mm, 0x50_1ff0), Ok(0), "what was given back is forgotten");
    mm.set_limit(crate::mm::Limit::Data, 0x2000);
    assert_eq!(mm.brk(0x50_2000).get(), 0x50_2000);
    assert_eq!(mm.brk(0x50_3000).get(), 0x50_2000, "not beyond RLIMIT_DATA");
    mm.validate();
}

#[test]
fn a_stack_grows_until_its_limit_and_keeps_its_distance() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let top = 0x4000_0000;
    map_at(&mm, top - PAGE, PAGE, RW, Map::FIXED | Map::GROWSDOWN).unwrap();
    rig.write(&mm, top - 10 * PAGE, 1).unwrap();
    assert_eq!(mm.stats().stack, 10);
    map_at(&mm, top - 1000 * PAGE, PAGE, RW, Map::FIXED).unwrap();
    assert_eq!(rig.write(&mm, top - 900 * PAGE, 1), Err(FaultError::Unmapped), "too near");
    rig.write(&mm, top - 700 * PAGE, 1).unwrap();
    mm.set_limit(crate::mm::Limit::Stack, 710 * PAGE as u64);
    assert_eq!(rig.write(&mm, top - 711 * PAGE, 1), Err(FaultError::Unmapped));
    rig.write(&mm, top - 710 * PAGE, 1).unwrap();
    mm.validate();
}
