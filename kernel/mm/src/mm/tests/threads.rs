//! Threads of one space on several CPUs at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// Two threads fault, one maps and unmaps elsewhere, one forks: what each wrote stays what it is.
#[test]
fn faults_run_beside_changes_of_the_map() {
    let rig = Rig::new(128);
    let mm = rig.space();
    let shared = anon(&rig, &mm, 1024 * PAGE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (rig, mm, done) = (&rig, &mm, &done);
        let faulters: std::vec::Vec<_> = (0..2)
            .map(|cpu| {
                scope.spawn(move || {
                    for round in 0..4_u64 {
                        for page in 0..512 {
                            let va = shared + (2 * page + cpu) * PAGE;
                            let at = rig.touch(cpu, mm, va, Access::Write).unwrap().cast::<u64>();
                            // SAFETY: this thread alone writes to the page, which stays mapped.
                            unsafe { at.write_volatile(round << 32 | page as u64) };
                        }
                        Sim::set_cpu(cpu);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            Sim::set_cpu(2);
            while !done.load(Ordering::Relaxed) {
                let at = anon(rig, mm, 7 * PAGE);
                rig.touch(2, mm, at + 3 * PAGE, Access::Write).unwrap();
                mm.protect(at + PAGE, PAGE, Prot::READ).unwrap();
                mm.unmap(at, 7 * PAGE).unwrap();
            }
        });
        scope.spawn(move || {
            Sim::set_cpu(3);
            while !done.load(Ordering::Relaxed) {
                drop(mm.fork().unwrap());
                thread::yield_now();
            }
        });
        for faulter in faulters {
            faulter.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    mm.validate();
    for page in 0..512_u64 {
        for cpu in 0..2 {
            assert_eq!(rig.read(&mm, shared + (2 * page as usize + cpu) * PAGE), Ok(3 << 32 | page));
        }
    }
    (0..4).for_each(|cpu| rig.idle(cpu));
    drop(mm);
    rig.assert_balanced();
}
