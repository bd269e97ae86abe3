//! Validation of the area tree.

use core::cmp::max;

use super::tree::{AreaTree, Link, at};
use crate::table::Machine;

impl<M: Machine> AreaTree<M> {
    /// Checks order, balance, gaps, threading and the `Spans` against their definitions.
    pub fn validate(&self) {
        fn walk<M: Machine>(tree: &AreaTree<M>, link: Link<M>, parent: Link<M>, n: &mut usize) -> (i32, usize) {
            let Some(node) = link else { return (0, 0) };
            // SAFETY: the tree is borrowed.
            let vma = unsafe { at(node) };
            assert!(vma.links.parent == parent, "parent link");
            assert!(vma.start < vma.end, "an empty area");
            let (hl, gl) = walk(tree, vma.links.left, link, n);
            *n += 1;
            let (hr, gr) = walk(tree, vma.links.right, link, n);
            assert!((hl - hr).abs() <= 1, "balance");
            let before = tree.prev(vma).map_or(0, |p| p.end.get());
            assert!(before <= vma.start.get(), "areas overlap");
            assert_eq!(vma.links.gap, vma.guarded_start().saturating_sub(before), "gap of {:?}", vma.start);
            let h = 1 + max(hl, hr);
            let g = max(vma.links.gap, max(gl, gr));
            assert_eq!((vma.links.height as i32, vma.links.max_gap), (h, g));
            (h, g)
        }
        let mut n = 0;
        walk(self, self.root, None, &mut n);
        assert_eq!(n, self.count);
        assert_eq!(self.iter().count(), n);
        let mut back = 0;
        let mut link = self.last;
        while let Some(node) = link {
            back += 1;
            // SAFETY: `self` is borrowed.
            link = unsafe { at(node) }.links.prev;
        }
        assert_eq!(back, n);
        self.away.validate();
        let away: usize = self.iter().filter(|vma| !vma.is_at_pgoff()).count();
        assert_eq!(self.away.len(), away, "areas that were moved");
    }
}
